// What the cache has done, in numbers that answer an operator's questions: how much was reused, and
// why not more.
//
// Thread: value types.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "kv/block_pool.h"

namespace kvasir::kv {

// Why a prompt token was not served from the cache. Prompts are counted once, when first admitted.
enum class MissReason : uint8_t {
  kNeverSeen,   // no sequence had these tokens here
  kEvicted,     // its block was cached once
  kDomain,      // only another tenant or adapter has it
  kDiverged,    // the cache goes on from here, but with another token
  kWindow,      // cached, but a sliding window has let go of what stands before it
  kLastToken,   // the prompt is cached to its end; the last token is computed for its logits
  kNotAllowed,  // the request reads no cache, or the mode keeps none
};
constexpr size_t kMissReasons = 7;
std::string_view miss_reason_name(MissReason reason);

// How a prompt met the cache.
struct MatchReport {
  uint32_t tokens_cached = 0;
  std::array<uint32_t, kMissReasons> missed{};  // tokens, by MissReason
  std::optional<uint32_t> diverged_at;          // position of the first token that differs

  uint32_t& missed_for(MissReason reason) { return missed[static_cast<size_t>(reason)]; }
  uint32_t missed_for(MissReason reason) const { return missed[static_cast<size_t>(reason)]; }
};

struct GroupStats {
  BlockCounts blocks;
  uint64_t block_bytes = 0;
  uint64_t evicted = 0;  // blocks, since the start
};

struct CacheStats {
  std::vector<GroupStats> groups;
  uint64_t prompt_tokens = 0;  // hits and misses together
  uint64_t tokens_hit = 0;
  std::array<uint64_t, kMissReasons> tokens_missed{};
  uint32_t sequences = 0;  // open leases
  uint32_t nodes = 0;      // of the prefix index
  uint32_t nodes_max = 0;
  uint32_t blocks_logical = 0;  // entries of block tables; with sharing more than blocks in use
  uint32_t blocks_logical_peak = 0;
  double sharing_saved_at_peak = 0.0;  // 1 - blocks in use / blocks_logical, when that was largest
  uint64_t slots_allocated = 0;        // token slots of referenced blocks now
  uint64_t slots_live = 0;             // those that hold a token, shared ones once
  uint64_t blocks_deduplicated = 0;
  uint64_t blocks_copied = 0;     // on write to a shared block
  uint64_t blocks_relocated = 0;  // so that a slab could change its group
  uint64_t promises_kept = 0;     // blocks that a promise announced and its owner sealed
  uint64_t encoder_inputs_computed = 0;
  uint64_t encoder_inputs_shared = 0;  // found in memory instead
  uint64_t pinned_bytes = 0;
  uint64_t oldest_cached_age_us = 0;  // of the block that goes next
  uint64_t evicted_age_us = 0;        // time since last use, of the last evicted block

  // Of the first group.
  const BlockCounts& blocks() const { return groups.front().blocks; }
};

}  // namespace kvasir::kv
