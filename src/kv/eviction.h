// Which cached block goes next. Least recently used in two segments for each retention priority:
// blocks that were used again survive those seen once, so that a sweep over new prompts does not
// push live conversations out. Blocks that left a sliding window go before everything.
//
//   next out -> | out of window | low: once, reused | normal: once, reused | high: once, reused |
//
// The reused segments hold at most `reused_max` blocks together with the order kept: what is over
// goes back to the end of its priority's other segment.
//
// Thread: engine thread only. Allocates: constructor only. All operations take constant time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/ids.h"

namespace kvasir::kv {

enum class Retention : uint8_t { kLow, kNormal, kHigh };
constexpr size_t kRetentions = 3;

enum class Worth : uint8_t {
  kOutOfWindow,  // no later token of its sequence reads it
  kSeenOnce,
  kReused,  // some sequence has matched it
};

class EvictionQueue {
 public:
  // For block ids below `blocks`.
  EvictionQueue(uint32_t blocks, uint32_t reused_max);

  // Puts a block at the end of its segment. Requires: it is not in the queue.
  void insert(BlockId block, Retention retention, Worth worth);
  // Takes a block out, wherever it is. Requires: it is in the queue.
  void remove(BlockId block);
  // The block that goes next; nullopt: the queue is empty.
  std::optional<BlockId> next() const;

  bool contains(BlockId block) const { return links_[index_of(block)].segment != kNoSegment; }
  uint32_t size() const { return size_; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint8_t kSegments = 1 + 2 * kRetentions;
  static constexpr uint8_t kNoSegment = kSegments;

  struct Link {
    uint32_t previous = kNone;
    uint32_t next = kNone;
    uint8_t segment = kNoSegment;
  };
  struct Segment {
    uint32_t first = kNone;
    uint32_t last = kNone;
  };

  void append(uint32_t block, uint8_t segment);
  void demote_one();

  uint32_t reused_max_;
  std::vector<Link> links_;  // by block
  std::array<Segment, kSegments> segments_{};
  uint32_t size_ = 0;
  uint32_t reused_ = 0;  // blocks in reused segments
};

}  // namespace kvasir::kv
