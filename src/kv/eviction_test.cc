#include "kv/eviction.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

namespace kvasir::kv {
namespace {

// Everything that is in the queue, in the order in which it goes.
std::vector<uint32_t> drain(EvictionQueue& queue) {
  std::vector<uint32_t> order;
  while (const std::optional<BlockId> block = queue.next()) {
    order.push_back(index_of(*block));
    queue.remove(*block);
  }
  return order;
}

TEST(EvictionQueue, an_empty_queue_has_no_next) {
  EvictionQueue queue(4, 4);
  EXPECT_FALSE(queue.next().has_value());
  EXPECT_EQ(queue.size(), 0U);
  EXPECT_FALSE(queue.contains(BlockId{3}));
}

TEST(EvictionQueue, goes_by_window_then_priority_then_reuse_then_age) {
  EvictionQueue queue(10, 10);
  queue.insert(BlockId{0}, Retention::kHigh, Worth::kReused);
  queue.insert(BlockId{1}, Retention::kHigh, Worth::kSeenOnce);
  queue.insert(BlockId{2}, Retention::kNormal, Worth::kReused);
  queue.insert(BlockId{3}, Retention::kNormal, Worth::kSeenOnce);
  queue.insert(BlockId{4}, Retention::kNormal, Worth::kSeenOnce);
  queue.insert(BlockId{5}, Retention::kLow, Worth::kReused);
  queue.insert(BlockId{6}, Retention::kLow, Worth::kSeenOnce);
  queue.insert(BlockId{7}, Retention::kHigh, Worth::kOutOfWindow);
  EXPECT_EQ(drain(queue), (std::vector<uint32_t>{7, 6, 5, 3, 4, 2, 1, 0}));
}

TEST(EvictionQueue, a_sweep_of_blocks_seen_once_leaves_the_reused_ones) {
  EvictionQueue queue(100, 8);
  for (uint32_t i = 0; i < 8; ++i) queue.insert(BlockId{i}, Retention::kNormal, Worth::kReused);
  for (uint32_t i = 8; i < 100; ++i) {
    queue.insert(BlockId{i}, Retention::kNormal, Worth::kSeenOnce);
    EXPECT_GE(index_of(*queue.next()), 8U);
    queue.remove(*queue.next());
  }
  EXPECT_EQ(queue.size(), 8U);
}

TEST(EvictionQueue, too_many_reused_blocks_are_demoted_from_the_lowest_priority_first) {
  EvictionQueue queue(10, 2);
  queue.insert(BlockId{0}, Retention::kNormal, Worth::kReused);
  queue.insert(BlockId{1}, Retention::kLow, Worth::kReused);
  queue.insert(BlockId{2}, Retention::kNormal, Worth::kReused);  // demotes 1: low
  queue.insert(BlockId{3}, Retention::kLow, Worth::kSeenOnce);
  queue.insert(BlockId{4}, Retention::kNormal, Worth::kReused);  // demotes 0: oldest
  queue.insert(BlockId{5}, Retention::kNormal, Worth::kSeenOnce);
  EXPECT_EQ(drain(queue), (std::vector<uint32_t>{1, 3, 0, 5, 2, 4}));
}

// The same in vectors, one for each segment.
class NaiveQueue {
 public:
  explicit NaiveQueue(uint32_t reused_max) : reused_max_(reused_max) {}

  void insert(uint32_t block, Retention retention, Worth worth) {
    if (worth == Worth::kOutOfWindow) {
      left_.push_back(block);
      return;
    }
    auto& priority = priorities_[static_cast<size_t>(retention)];
    (worth == Worth::kReused ? priority.reused : priority.once).push_back(block);
    size_t reused = 0;
    for (const Priority& p : priorities_) reused += p.reused.size();
    if (reused <= reused_max_) return;
    for (Priority& p : priorities_) {
      if (p.reused.empty()) continue;
      p.once.push_back(p.reused.front());
      p.reused.erase(p.reused.begin());
      return;
    }
  }
  void remove(uint32_t block) {
    std::erase(left_, block);
    for (Priority& p : priorities_) {
      std::erase(p.once, block);
      std::erase(p.reused, block);
    }
  }
  std::vector<uint32_t> order() const {
    std::vector<uint32_t> all = left_;
    for (const Priority& p : priorities_) {
      all.insert(all.end(), p.once.begin(), p.once.end());
      all.insert(all.end(), p.reused.begin(), p.reused.end());
    }
    return all;
  }

 private:
  struct Priority {
    std::vector<uint32_t> once;
    std::vector<uint32_t> reused;
  };
  size_t reused_max_;
  std::vector<uint32_t> left_;
  std::array<Priority, kRetentions> priorities_;
};

RC_GTEST_PROP(EvictionQueue, agrees_with_a_naive_twin, ()) {
  constexpr uint32_t kBlocks = 12;
  const uint32_t reused_max = *rc::gen::inRange(0U, kBlocks + 1);
  EvictionQueue queue(kBlocks, reused_max);
  NaiveQueue twin(reused_max);
  using Step = std::tuple<uint32_t, uint32_t, uint32_t>;  // block, retention, worth
  const auto steps = *rc::gen::scale(
      3.0, rc::gen::container<std::vector<Step>>(rc::gen::tuple(
               rc::gen::inRange(0U, kBlocks), rc::gen::inRange(0U, 3U), rc::gen::inRange(0U, 3U))));
  for (const auto& [block, retention, worth] : steps) {
    if (queue.contains(BlockId{block})) {
      queue.remove(BlockId{block});
      twin.remove(block);
    } else {
      queue.insert(BlockId{block}, static_cast<Retention>(retention), static_cast<Worth>(worth));
      twin.insert(block, static_cast<Retention>(retention), static_cast<Worth>(worth));
    }
    const std::vector<uint32_t> order = twin.order();
    RC_ASSERT(queue.size() == order.size());
    RC_ASSERT(queue.next().has_value() == !order.empty());
    if (!order.empty()) RC_ASSERT(index_of(*queue.next()) == order.front());
  }
  RC_ASSERT(drain(queue) == twin.order());
}

}  // namespace
}  // namespace kvasir::kv
