// What attention sees of the cache: the blocks of one sequence, in order, and how they are laid
// out, for each KV group. Nothing of pools, reference counts or eviction.
//
// Thread: a value type; valid until the step ends. Allocates: never.
#pragma once

#include <cstddef>
#include <span>

#include "kv/layout.h"

namespace kvasir::kv {

struct GroupView {
  const BlockLayout* layout = nullptr;
  // blocks[i] holds positions i * block_tokens .. (i + 1) * block_tokens - 1; nullptr: they have
  // left the group's window.
  std::span<std::byte* const> blocks;
  uint32_t tokens = 0;  // kCross: the encoder's; else unused

  std::byte* block_of(uint32_t position) const {
    const uint32_t index = position / layout->block_tokens();
    CHECK(index < blocks.size());
    CHECK(blocks[index] != nullptr);
    return blocks[index];
  }
  uint32_t slot_of(uint32_t position) const { return position % layout->block_tokens(); }
};

struct View {
  std::span<const GroupView> groups;  // in the order of CacheOptions::groups
};

}  // namespace kvasir::kv
