#include "kv/block_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

namespace kvasir::kv {
namespace {

constexpr size_t kBlockBytes = 256;

BlockPool make_pool(uint32_t blocks) {
  return *BlockPool::create({.block_bytes = {kBlockBytes},
                             .budget_bytes = blocks * kBlockBytes,
                             .poison_released = true});
}

// Slabs of 1024 bytes: four blocks of group 0 or two of group 1.
BlockPool make_pool_of_two_groups(uint32_t slabs) {
  return *BlockPool::create({.block_bytes = {256, 512},
                             .budget_bytes = uint64_t{slabs} * 1024,
                             .slab_unit_bytes = 1024,
                             .poison_released = true});
}

void give_back(BlockPool& pool, BlockId block) {
  ASSERT_TRUE(pool.drop_reference(block));
  pool.free(block);
}

TEST(BlockPool, a_budget_without_a_block_of_each_kind_is_refused) {
  const auto one = BlockPool::create({.block_bytes = {256}, .budget_bytes = 255});
  ASSERT_FALSE(one.has_value());
  EXPECT_NE(one.error().message.find("256"), std::string::npos);
  const auto two =
      BlockPool::create({.block_bytes = {256, 512}, .budget_bytes = 2047, .slab_unit_bytes = 1024});
  EXPECT_FALSE(two.has_value());
}

TEST(BlockPool, gives_every_block_once_and_then_none) {
  BlockPool pool = make_pool(5);
  std::set<std::byte*> places;
  for (int i = 0; i < 5; ++i) {
    const std::optional<BlockId> block = pool.take(0);
    ASSERT_TRUE(block.has_value());
    EXPECT_EQ(pool.state(*block), BlockState::kFilling);
    EXPECT_EQ(pool.references(*block), 1U);
    places.insert(pool.data(*block));
    pool.check_invariants();
  }
  EXPECT_EQ(places.size(), 5U);
  for (const std::byte* place : places)
    EXPECT_EQ(static_cast<size_t>(place - *places.begin()) % kBlockBytes, 0U);
  EXPECT_FALSE(pool.take(0).has_value());
  EXPECT_EQ(pool.counts(0).referenced_peak, 5U);
}

TEST(BlockPool, the_block_freed_last_is_taken_first) {
  BlockPool pool = make_pool(4);
  const BlockId a = *pool.take(0);
  const BlockId b = *pool.take(0);
  give_back(pool, a);
  give_back(pool, b);
  EXPECT_EQ(*pool.take(0), b);
  EXPECT_EQ(*pool.take(0), a);
}

TEST(BlockPool, a_block_lives_through_all_its_states) {
  BlockPool pool = make_pool(1);
  const BlockId block = *pool.take(0);
  pool.seal(block);
  pool.add_reference(block);
  EXPECT_FALSE(pool.drop_reference(block));
  pool.unseal(block);
  EXPECT_EQ(pool.state(block), BlockState::kFilling);
  pool.seal(block);
  EXPECT_TRUE(pool.drop_reference(block));
  pool.cache(block);
  pool.check_invariants();
  EXPECT_EQ(pool.counts(0).of(BlockState::kCached), 1U);
  EXPECT_FALSE(pool.take(0).has_value());
  pool.add_reference(block);
  EXPECT_EQ(pool.state(block), BlockState::kSealed);
  EXPECT_TRUE(pool.drop_reference(block));
  pool.cache(block);
  pool.free(block);
  pool.check_invariants();
  EXPECT_EQ(pool.blocks_takeable(0), 1U);
}

TEST(BlockPool, a_reference_to_a_freed_block_is_stale_even_when_it_is_taken_again) {
  BlockPool pool = make_pool(1);
  const BlockId block = *pool.take(0);
  const BlockRef before = pool.ref(block);
  EXPECT_FALSE(pool.is_stale(before));
  give_back(pool, block);
  EXPECT_TRUE(pool.is_stale(before));
  EXPECT_EQ(*pool.take(0), block);
  EXPECT_TRUE(pool.is_stale(before));
  EXPECT_FALSE(pool.is_stale(pool.ref(block)));
}

TEST(BlockPool, released_memory_is_poisoned_and_cleared_memory_is_zero) {
  BlockPool pool = make_pool(2);
  const BlockId block = *pool.take(0);
  pool.clear(block);
  const std::span bytes(pool.data(block), kBlockBytes);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
  give_back(pool, block);
  EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0xa5}; }));
}

TEST(BlockPool, runs_are_neighbours_at_a_multiple_of_their_length) {
  BlockPool pool = make_pool(10);
  const BlockId single = *pool.take(0);
  EXPECT_EQ(index_of(single), 0U);
  const std::optional<BlockId> run = pool.take_run(4);
  ASSERT_TRUE(run.has_value());
  EXPECT_EQ(index_of(*run), 4U);
  for (uint32_t i = 4; i < 8; ++i) EXPECT_EQ(pool.state(BlockId{i}), BlockState::kFilling);
  pool.check_invariants();
  EXPECT_FALSE(pool.take_run(4).has_value());  // 1-3 and 8-9 are free, but no aligned four
  EXPECT_EQ(index_of(*pool.take_run(2)), 2U);
  EXPECT_EQ(index_of(*pool.take_run(2)), 8U);
  EXPECT_EQ(index_of(*pool.take_run(1)), 1U);
  EXPECT_FALSE(pool.take_run(1).has_value());
  pool.check_invariants();
}

TEST(BlockPool, an_empty_slab_goes_to_the_group_that_needs_it) {
  BlockPool pool = make_pool_of_two_groups(2);
  EXPECT_EQ(pool.blocks_max(0), 8U);
  EXPECT_EQ(pool.blocks_max(1), 4U);
  std::vector<BlockId> small;
  small.reserve(8);
  for (int i = 0; i < 8; ++i) small.push_back(*pool.take(0));
  EXPECT_FALSE(pool.take(1).has_value());
  EXPECT_EQ(pool.blocks_takeable(1), 0U);
  for (const BlockId block : small) {
    if (pool.slab_of(block) == 1) give_back(pool, block);
  }
  EXPECT_EQ(pool.blocks_takeable(1), 2U);
  EXPECT_EQ(pool.blocks_takeable(0), 4U);
  const BlockId large = *pool.take(1);
  EXPECT_EQ(pool.group(large), 1U);
  EXPECT_EQ(pool.slab_of(large), 1U);
  EXPECT_EQ(pool.counts(0).capacity(), 4U);
  EXPECT_EQ(pool.counts(1).capacity(), 2U);
  EXPECT_FALSE(pool.take(0).has_value());
  pool.check_invariants();
}

TEST(BlockPool, references_from_before_a_slab_changed_its_group_are_stale) {
  BlockPool pool = make_pool_of_two_groups(2);
  const BlockId small = *pool.take(0);
  const BlockRef before = pool.ref(small);
  give_back(pool, small);
  while (const auto block = pool.take(1)) EXPECT_EQ(pool.group(*block), 1U);
  EXPECT_TRUE(pool.is_stale(before));
}

TEST(BlockPool, a_moved_block_keeps_bytes_owners_and_state) {
  BlockPool pool = make_pool(3);
  const BlockId from = *pool.take(0);
  std::ranges::fill(std::span(pool.data(from), kBlockBytes), std::byte{7});
  pool.seal(from);
  pool.add_reference(from);
  const BlockRef before = pool.ref(from);
  const BlockId to = *pool.take(0);
  pool.move(from, to);
  EXPECT_EQ(pool.state(to), BlockState::kSealed);
  EXPECT_EQ(pool.references(to), 2U);
  EXPECT_TRUE(pool.is_stale(before));
  EXPECT_EQ(pool.state(from), BlockState::kFree);
  EXPECT_TRUE(std::ranges::all_of(std::span(pool.data(to), kBlockBytes),
                                  [](std::byte b) { return b == std::byte{7}; }));
  pool.check_invariants();
}

TEST(BlockPool, repair_brings_a_leaked_block_back) {
  BlockPool pool = make_pool(2);
  const BlockId leaked = *pool.take(0);
  pool.repair(leaked, 0, /*cached=*/false);
  EXPECT_EQ(pool.state(leaked), BlockState::kFree);
  pool.check_invariants();
}

// Two groups take and give back at random; nobody's bytes are ever touched by another.
TEST(BlockPool, random_takes_of_two_groups_never_overlap) {
  for (uint32_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    BlockPool pool = make_pool_of_two_groups(4);
    std::vector<std::pair<BlockId, std::byte>> held;
    const auto bytes_of = [&](BlockId block) {
      return std::span(pool.data(block), pool.block_bytes(pool.group(block)));
    };
    for (uint32_t step = 0; step < 500; ++step) {
      const std::byte mark{static_cast<uint8_t>(step)};
      if (random() % 2 == 0 || held.empty()) {
        const uint32_t group = random() % 2;
        const uint32_t takeable = pool.blocks_takeable(group);
        const std::optional<BlockId> block = pool.take(group);
        ASSERT_EQ(block.has_value(), takeable > 0);
        if (!block) continue;
        std::ranges::fill(bytes_of(*block), mark);
        held.emplace_back(*block, mark);
      } else {
        const size_t chosen = random() % held.size();
        give_back(pool, held[chosen].first);
        held.erase(held.begin() + static_cast<ptrdiff_t>(chosen));
      }
      for (const auto& [block, its] : held) {
        ASSERT_TRUE(std::ranges::all_of(bytes_of(block), [&](std::byte b) { return b == its; }));
      }
      pool.check_invariants();
    }
  }
}

}  // namespace
}  // namespace kvasir::kv
