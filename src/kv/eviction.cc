#include "kv/eviction.h"

#include "base/check.h"

namespace kvasir::kv {
namespace {

// Segments in the order in which they go: 0 is out of window; then seen once (odd) and reused
// (even) of each priority.
uint8_t segment_of(Retention retention, Worth worth) {
  if (worth == Worth::kOutOfWindow) return 0;
  return static_cast<uint8_t>(1 + 2 * static_cast<uint8_t>(retention) +
                              (worth == Worth::kReused ? 1 : 0));
}

bool is_reused(uint8_t segment) {
  return segment > 0 && segment % 2 == 0;
}

}  // namespace

EvictionQueue::EvictionQueue(uint32_t blocks, uint32_t reused_max)
    : reused_max_(reused_max), links_(blocks) {}

void EvictionQueue::insert(BlockId block, Retention retention, Worth worth) {
  CHECK(!contains(block));
  append(index_of(block), segment_of(retention, worth));
  if (reused_ > reused_max_) demote_one();
}

void EvictionQueue::remove(BlockId block) {
  CHECK(contains(block));
  Link& link = links_[index_of(block)];
  Segment& segment = segments_[link.segment];
  (link.previous == kNone ? segment.first : links_[link.previous].next) = link.next;
  (link.next == kNone ? segment.last : links_[link.next].previous) = link.previous;
  if (is_reused(link.segment)) --reused_;
  --size_;
  link = {};
}

std::optional<BlockId> EvictionQueue::next() const {
  for (const Segment& segment : segments_) {
    if (segment.first != kNone) return BlockId{segment.first};
  }
  return std::nullopt;
}

void EvictionQueue::append(uint32_t block, uint8_t index) {
  Segment& segment = segments_[index];
  links_[block] = {.previous = segment.last, .next = kNone, .segment = index};
  (segment.last == kNone ? segment.first : links_[segment.last].next) = block;
  segment.last = block;
  if (is_reused(index)) ++reused_;
  ++size_;
}

// The least recently used of the lowest priority gets a second life among those seen once.
void EvictionQueue::demote_one() {
  for (uint8_t reused = 2; reused < kSegments; reused += 2) {
    const uint32_t block = segments_[reused].first;
    if (block == kNone) continue;
    remove(BlockId{block});
    append(block, reused - 1);
    return;
  }
}

}  // namespace kvasir::kv
