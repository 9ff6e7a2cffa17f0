#include "kv/cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

namespace kvasir::kv {
namespace {

constexpr GroupShape kGroup{.layers = 2, .kv_heads = 1, .head_dim = 16};
constexpr uint32_t kBlockTokens = 16;

std::unique_ptr<Cache> make_cache(CacheMode mode, uint32_t blocks, uint32_t sequence_tokens_max) {
  const BlockLayout layout(kGroup, kBlockTokens);
  auto cache = Cache::create({.mode = mode,
                              .group = kGroup,
                              .block_tokens = kBlockTokens,
                              .budget_bytes = blocks * layout.block_bytes(),
                              .sequences_max = 8,
                              .sequence_tokens_max = sequence_tokens_max});
  EXPECT_TRUE(cache.has_value());
  return *std::move(cache);
}

TEST(BlockLayout, bytes_per_token_is_the_textbook_formula) {
  // LLaMA-7B at 16 bits: 16,384 B per token and layer, 524,288 B per token.
  const BlockLayout layout({.layers = 32, .kv_heads = 32, .head_dim = 128}, 32);
  EXPECT_EQ(layout.payload_bytes_per_token(), 524288U);
  EXPECT_EQ(layout.block_bytes(), 32U * 524288U);
}

TEST(BlockLayout, tiles_of_a_block_do_not_overlap_and_fill_it) {
  const BlockLayout layout({.layers = 3, .kv_heads = 2, .head_dim = 32}, 16);
  std::vector<size_t> offsets;
  for (uint32_t layer = 0; layer < 3; ++layer) {
    for (uint32_t head = 0; head < 2; ++head) {
      offsets.push_back(layout.key_offset(layer, head));
      offsets.push_back(layout.value_offset(layer, head));
    }
  }
  for (size_t i = 0; i < offsets.size(); ++i) {
    EXPECT_EQ(offsets[i], i * layout.tile().tile_bytes());
    EXPECT_EQ(offsets[i] % 64, 0U);
  }
  EXPECT_EQ(layout.block_bytes(), offsets.size() * layout.tile().tile_bytes());
}

TEST(BlockPool, never_hands_out_a_run_twice_and_counts_generations) {
  const BlockLayout layout(kGroup, kBlockTokens);
  BlockPool pool = *BlockPool::create(layout, 3, 1);
  const BlockId a = *pool.take();
  const BlockId b = *pool.take();
  const BlockId c = *pool.take();
  EXPECT_NE(a, b);
  EXPECT_NE(b, c);
  EXPECT_NE(a, c);
  EXPECT_FALSE(pool.take().has_value());
  const uint32_t generation = pool.generation(b);
  pool.drop_reference(b);
  EXPECT_EQ(*pool.take(), b);
  EXPECT_EQ(pool.generation(b), generation + 1);
  pool.check_invariants();
}

TEST(BlockPool, a_shared_block_is_free_only_after_its_last_owner) {
  const BlockLayout layout(kGroup, kBlockTokens);
  BlockPool pool = *BlockPool::create(layout, 1, 1);
  const BlockId block = *pool.take();
  pool.add_reference(block);
  pool.drop_reference(block);
  EXPECT_EQ(pool.stats().blocks_free, 0U);
  EXPECT_EQ(pool.references(block), 1U);
  pool.drop_reference(block);
  EXPECT_EQ(pool.stats().blocks_free, 1U);
  pool.check_invariants();
}

TEST(BlockPool, a_run_is_free_only_when_all_its_blocks_are) {
  const BlockLayout layout(kGroup, kBlockTokens);
  BlockPool pool = *BlockPool::create(layout, 2, 4);
  const BlockId first = *pool.take();
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_EQ(pool.stats().blocks_free, 4U);
    pool.drop_reference(BlockId{index_of(first) + i});
    pool.check_invariants();
  }
  EXPECT_EQ(pool.stats().blocks_free, 8U);
}

TEST(Cache, a_budget_below_one_block_is_refused_in_one_line) {
  const auto cache = Cache::create({.group = kGroup,
                                    .block_tokens = kBlockTokens,
                                    .budget_bytes = 100,
                                    .sequence_tokens_max = 64});
  ASSERT_FALSE(cache.has_value());
  EXPECT_EQ(cache.error().kind, base::ErrorKind::kBadInput);
  EXPECT_NE(cache.error().message.find("100 bytes"), std::string::npos);
}

TEST(Cache, never_exceeds_its_budget) {
  const BlockLayout layout(kGroup, kBlockTokens);
  const auto cache = *Cache::create({.group = kGroup,
                                     .block_tokens = kBlockTokens,
                                     .budget_bytes = 3 * layout.block_bytes() + 1,
                                     .sequence_tokens_max = 64});
  EXPECT_EQ(cache->stats().pool.blocks_capacity, 3U);
}

TEST(Cache, paged_takes_blocks_only_as_tokens_arrive) {
  const auto cache = make_cache(CacheMode::kPaged, 8, 128);
  const Lease lease = cache->open(100);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 0U);
  cache->grow(lease, 1);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 1U);
  cache->grow(lease, 16);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 1U);
  cache->grow(lease, 17);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 2U);
  EXPECT_EQ(cache->view(lease).blocks.size(), 2U);
  cache->check_invariants();
}

TEST(Cache, contiguous_takes_the_longest_sequence_at_once_in_neighbouring_blocks) {
  const auto cache = make_cache(CacheMode::kContiguous, 9, 64);  // runs of 4: two fit
  const Lease a = cache->open(1);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 4U);
  EXPECT_EQ(cache->stats().pool.blocks_capacity, 8U);
  const Lease b = cache->open(64);
  cache->grow(b, 64);
  const View view = cache->view(b);
  for (size_t i = 1; i < view.blocks.size(); ++i) {
    EXPECT_EQ(view.blocks[i] - view.blocks[i - 1],
              static_cast<ptrdiff_t>(cache->layout().block_bytes()));
  }
  EXPECT_EQ(cache->admission(1), Admission::kLater);
  cache->check_invariants();
}

TEST(Cache, admission_promises_what_open_sequences_may_still_need) {
  const auto cache = make_cache(CacheMode::kPaged, 4, 128);
  EXPECT_EQ(cache->admission(65), Admission::kNever);
  {
    const Lease lease = cache->open(48);  // 3 of 4 blocks, none taken yet
    EXPECT_EQ(cache->admission(17), Admission::kLater);
    EXPECT_EQ(cache->admission(16), Admission::kNow);
  }
  EXPECT_EQ(cache->admission(64), Admission::kNow);
}

TEST(Cache, blocks_are_zero_filled_when_they_join_a_sequence) {
  for (const CacheMode mode : {CacheMode::kNone, CacheMode::kContiguous, CacheMode::kPaged}) {
    const auto cache = make_cache(mode, 4, 64);
    for (int round = 0; round < 2; ++round) {
      const Lease lease = cache->open(64);
      cache->grow(lease, 64);
      for (std::byte* block : cache->view(lease).blocks) {
        const std::span bytes(block, cache->layout().block_bytes());
        EXPECT_TRUE(std::ranges::all_of(bytes, [](std::byte b) { return b == std::byte{0}; }));
        std::memset(block, 0xA5, bytes.size());  // what the next owner must not see
      }
    }
  }
}

TEST(Cache, truncate_returns_the_blocks_and_keeps_the_promise) {
  const auto cache = make_cache(CacheMode::kNone, 4, 64);
  const Lease lease = cache->open(64);
  cache->grow(lease, 40);
  cache->truncate(lease, 17);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 2U);
  cache->truncate(lease, 0);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 0U);
  EXPECT_EQ(cache->stats().blocks_promised, 4U);
  cache->grow(lease, 64);
  cache->check_invariants();
}

TEST(Cache, truncate_zeroes_the_forgotten_slots_and_no_others) {
  for (const CacheMode mode : {CacheMode::kContiguous, CacheMode::kPaged}) {
    const auto cache = make_cache(mode, 4, 64);
    const Lease lease = cache->open(64);
    cache->grow(lease, 64);
    const BlockLayout& layout = cache->layout();
    const std::vector<float> row(16, 1.0F);
    for (std::byte* block : cache->view(lease).blocks) {
      for (uint32_t slot = 0; slot < kBlockTokens; ++slot) {
        quant::store_key(layout.tile(), row, slot, block + layout.key_offset(1, 0));
        quant::store_value(layout.tile(), row, slot, block + layout.value_offset(1, 0));
      }
    }
    cache->truncate(lease, 21);  // five slots of the second block stay
    cache->grow(lease, 64);
    const View view = cache->view(lease);
    for (uint32_t position = 0; position < 64; ++position) {
      std::vector<float> key(16);
      std::vector<float> value(16);
      const std::byte* block = view.block_of(position);
      quant::load_key(layout.tile(), block + layout.key_offset(1, 0), view.slot_of(position), key);
      quant::load_value(layout.tile(), block + layout.value_offset(1, 0), view.slot_of(position),
                        value);
      EXPECT_EQ(key[3], position < 21 ? 1.0F : 0.0F) << "position " << position;
      EXPECT_EQ(value[3], position < 21 ? 1.0F : 0.0F) << "position " << position;
    }
  }
}

// The naive twin: how many tokens each open sequence may have and has.
struct TwinSequence {
  Lease lease;
  uint32_t tokens_max;
  uint32_t tokens = 0;
};

void run_random_operations(CacheMode mode, uint32_t seed) {
  SCOPED_TRACE(testing::Message() << "mode " << cache_mode_name(mode) << " seed " << seed);
  std::mt19937 engine(seed);
  const auto random = [&] { return static_cast<uint32_t>(engine()); };
  const uint32_t blocks = 1 + random() % 24;
  const auto cache = make_cache(mode, std::max(blocks, 8U), 128);
  const uint32_t capacity = cache->stats().pool.blocks_capacity;
  const auto blocks_for = [&](uint32_t tokens) {
    return mode == CacheMode::kContiguous ? 8U : (tokens + kBlockTokens - 1) / kBlockTokens;
  };
  std::map<int, TwinSequence> twins;
  int next = 0;
  for (int step = 0; step < 400; ++step) {
    const uint32_t tokens_max = 1 + random() % 128;
    uint32_t promised = 0;
    for (const auto& [id, twin] : twins) promised += blocks_for(twin.tokens_max);
    if (random() % 3 == 0) {
      const bool fits = promised + blocks_for(tokens_max) <= capacity && twins.size() < 8;
      EXPECT_EQ(cache->admission(tokens_max) == Admission::kNow, fits);
      if (fits) twins.emplace(next++, TwinSequence{cache->open(tokens_max), tokens_max});
    } else if (!twins.empty()) {
      auto chosen = std::next(twins.begin(), static_cast<ptrdiff_t>(random() % twins.size()));
      TwinSequence& twin = chosen->second;
      if (random() % 4 == 0) {
        twins.erase(chosen);
      } else {
        twin.tokens = std::min(twin.tokens_max, twin.tokens + random() % 40);
        cache->grow(twin.lease, twin.tokens);
      }
    }
    uint32_t referenced = 0;
    for (const auto& [id, twin] : twins) {
      referenced += mode == CacheMode::kContiguous ? 8U : blocks_for(twin.tokens);
    }
    EXPECT_EQ(cache->stats().pool.blocks_referenced, referenced);
    cache->check_invariants();
  }
  twins.clear();
  EXPECT_EQ(cache->stats().pool.blocks_free, capacity);
}

TEST(Cache, random_operations_agree_with_a_naive_twin) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    run_random_operations(CacheMode::kPaged, seed);
    run_random_operations(CacheMode::kContiguous, seed);
  }
}

}  // namespace
}  // namespace kvasir::kv
