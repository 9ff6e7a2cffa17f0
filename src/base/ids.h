// Numbers that must not be mixed up: each has a type of its own.
#pragma once

#include <cstdint>

namespace kvasir {

using TokenId = int32_t;              // index into the vocabulary; validated at the edge
enum class BlockId : uint32_t {};     // index into the block pool
enum class SequenceId : uint64_t {};  // one running request; never reused in a process

constexpr uint32_t index_of(BlockId id) {
  return static_cast<uint32_t>(id);
}

}  // namespace kvasir
