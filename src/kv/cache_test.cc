// What the door of the cache promises about memory: blocks, budgets, copies, eviction, pins.
// cache_match_test.cc: what is found again.
#include "kv/cache.h"

#include <gtest/gtest.h>

#include <cstring>

#include "kv/testing.h"

namespace kvasir::kv {

// Breaks the books, so that their audit can be seen to find it.
struct CacheTesting {
  static BlockPool& pool(Cache& cache) { return cache.pool_; }
  static PrefixIndex& index(Cache& cache) { return cache.index_; }
  static EvictionQueue& queue(Cache& cache) { return cache.queues_[0]; }
};

namespace {

uint32_t referenced(const Cache& cache) {
  return cache.stats().blocks().referenced();
}

uint32_t cached(Cache& cache, const std::vector<TokenId>& text) {
  return cache.probe({.prompt = text + counting(1, 9999), .tokens_max = 120}).tokens_cached;
}

TEST(Cache, a_budget_that_holds_nothing_is_refused_with_what_it_takes) {
  CacheOptions options = test_options(1);
  options.budget_bytes = 100;
  const auto cache = Cache::create(options);
  ASSERT_FALSE(cache.has_value());
  EXPECT_EQ(cache.error().kind, base::ErrorKind::kBadInput);
  EXPECT_NE(cache.error().message.find("100 bytes"), std::string::npos);
}

TEST(Cache, never_exceeds_its_budget) {
  CacheOptions options = test_options(3);
  options.budget_bytes += 1;
  const auto cache = make_cache(options);
  EXPECT_EQ(cache->blocks_capacity(), 3U);
  EXPECT_TRUE(cache->can_ever_fit(48));
  EXPECT_FALSE(cache->can_ever_fit(49));
}

TEST(Cache, blocks_are_taken_only_as_tokens_arrive) {
  const auto cache = make_cache(test_options(8));
  TestSequence sequence = *TestSequence::open(*cache, {.prompt = counting(100)});
  EXPECT_EQ(referenced(*cache), 0U);
  ASSERT_TRUE(sequence.extend(counting(1)));
  EXPECT_EQ(referenced(*cache), 1U);
  ASSERT_TRUE(sequence.extend(counting(15, 1)));
  EXPECT_EQ(referenced(*cache), 1U);
  ASSERT_TRUE(sequence.extend(counting(1, 16)));
  EXPECT_EQ(referenced(*cache), 2U);
  EXPECT_EQ(sequence.blocks_held(), 2U);
  cache->check_invariants();
}

TEST(Cache, blocks_are_zero_filled_when_they_join_a_sequence) {
  for (const CacheMode mode : {CacheMode::kNone, CacheMode::kContiguous, CacheMode::kPaged}) {
    SCOPED_TRACE(cache_mode_name(mode));
    CacheOptions options = test_options(8);
    options.mode = mode;
    const auto cache = make_cache(options);
    const size_t bytes = cache->layout().block_bytes();
    for (int round = 0; round < 2; ++round) {
      const auto opened = cache->open({.prompt = counting(128), .tokens_max = 128});
      ASSERT_TRUE(opened.has_value());
      const auto reservation = cache->reserve(opened->lease, 128);
      ASSERT_TRUE(reservation.has_value());
      for (std::byte* block : cache->view(opened->lease).groups[0].blocks) {
        const auto is_zero = [](std::byte b) { return b == std::byte{0}; };
        EXPECT_TRUE(std::ranges::all_of(std::span(block, bytes), is_zero));
        std::memset(block, 0x5a, bytes);  // what the next owner must not see
      }
    }
  }
}

TEST(Cache, a_reservation_gives_back_what_append_has_not_used) {
  const auto cache = make_cache(test_options(8));
  const TestSequence sequence = TestSequence::run(*cache, counting(10));
  {
    const auto reservation = cache->reserve(sequence.lease, 100);
    ASSERT_TRUE(reservation.has_value());
    EXPECT_EQ(referenced(*cache), 7U);
  }
  EXPECT_EQ(referenced(*cache), 1U);
  EXPECT_EQ(cache->view(sequence.lease).groups[0].blocks.size(), 1U);
}

TEST(Cache, reserve_keeps_blocks_back) {
  const auto cache = make_cache(test_options(8));
  TestSequence sequence = TestSequence::run(*cache, counting(16));
  EXPECT_FALSE(sequence.extend(counting(80, 16), /*keep_back=*/3));
  EXPECT_TRUE(sequence.extend(counting(64, 16), /*keep_back=*/3));
  EXPECT_EQ(cache->blocks_available(), 3U);
}

TEST(Cache, a_borrowed_tail_is_copied_before_it_is_written) {
  const auto cache = make_cache(test_options(16));
  {
    const TestSequence owner = TestSequence::run(*cache, counting(40));
  }
  TestSequence a = TestSequence::run(*cache, counting(36) + counting(20, 100));
  TestSequence b = TestSequence::run(*cache, counting(36) + counting(20, 200));
  EXPECT_EQ(a.match.tokens_cached, 36U);
  EXPECT_EQ(b.match.tokens_cached, 36U);
  EXPECT_TRUE(a.bytes_are_right());
  EXPECT_TRUE(b.bytes_are_right());
  EXPECT_EQ(cache->stats().blocks_copied, 2U);
  const TestSequence again = TestSequence::run(*cache, counting(40) + counting(1, 300));
  EXPECT_EQ(again.match.tokens_cached, 40U);
  EXPECT_TRUE(again.bytes_are_right());
  cache->check_invariants();
}

TEST(Cache, the_only_user_of_a_full_pool_takes_its_borrowed_tail_over) {
  const auto cache = make_cache(test_options(7));
  {
    const TestSequence owner = TestSequence::run(*cache, counting(112));
  }
  const TestSequence again = TestSequence::run(*cache, counting(112));
  EXPECT_EQ(again.match.tokens_cached, 111U);
  EXPECT_EQ(cache->stats().blocks_copied, 0U);
  EXPECT_TRUE(again.bytes_are_right());
  cache->check_invariants();
}

TEST(Cache, a_fork_shares_everything_and_copies_only_the_tail_it_writes) {
  const auto cache = make_cache(test_options(16));
  TestSequence parent = TestSequence::run(*cache, counting(40));
  TestSequence child = *parent.fork();
  EXPECT_EQ(referenced(*cache), 3U);
  EXPECT_EQ(cache->stats().blocks_logical, 6U);
  ASSERT_TRUE(child.extend(counting(3, 100)));
  EXPECT_EQ(referenced(*cache), 4U);
  ASSERT_TRUE(parent.extend(counting(3, 200)));  // the tail is its own by now
  EXPECT_EQ(referenced(*cache), 4U);
  EXPECT_EQ(cache->stats().blocks_copied, 1U);
  EXPECT_TRUE(parent.bytes_are_right());
  EXPECT_TRUE(child.bytes_are_right());
  child.discard();
  EXPECT_EQ(referenced(*cache), 3U);
  parent.discard();
  EXPECT_EQ(referenced(*cache), 0U);
  EXPECT_EQ(cache->stats().blocks().of(BlockState::kCached), 2U);  // tails were thrown away
  cache->check_invariants();
}

TEST(Cache, a_contiguous_fork_copies_its_run) {
  CacheOptions options = test_options(16);
  options.mode = CacheMode::kContiguous;
  const auto cache = make_cache(options);
  TestSequence parent = TestSequence::run(*cache, counting(40));
  TestSequence child = *parent.fork();
  EXPECT_EQ(referenced(*cache), 16U);
  ASSERT_TRUE(child.extend(counting(30, 100)));
  ASSERT_TRUE(parent.extend(counting(30, 200)));
  EXPECT_TRUE(parent.bytes_are_right());
  EXPECT_TRUE(child.bytes_are_right());
  EXPECT_FALSE(parent.fork().has_value());
}

TEST(Cache, contiguous_sequences_lie_in_neighbouring_blocks) {
  CacheOptions options = test_options(17);
  options.mode = CacheMode::kContiguous;  // runs of 8: two fit
  const auto cache = make_cache(options);
  const auto a = cache->open({.prompt = counting(1), .tokens_max = 1});
  EXPECT_EQ(referenced(*cache), 8U);
  TestSequence b = TestSequence::run(*cache, counting(112));
  for (uint32_t i = 1; i < 7; ++i) {
    EXPECT_EQ(b.block(i) - b.block(i - 1), static_cast<ptrdiff_t>(cache->layout().block_bytes()));
  }
  EXPECT_FALSE(cache->open({.prompt = counting(1), .tokens_max = 1}).has_value());
  cache->check_invariants();
}

TEST(Cache, contiguous_runs_can_be_powers_of_two) {
  CacheOptions options = test_options(16);
  options.mode = CacheMode::kContiguous;
  options.contiguous_run = ContiguousRun::kPowerOfTwo;
  const auto cache = make_cache(options);
  const auto three = cache->open({.prompt = counting(1), .tokens_max = 48});
  EXPECT_EQ(referenced(*cache), 4U);
  const auto one = cache->open({.prompt = counting(1), .tokens_max = 16});
  EXPECT_EQ(referenced(*cache), 5U);
  const auto eight = cache->open({.prompt = counting(1), .tokens_max = 128});
  EXPECT_EQ(referenced(*cache), 13U);
  EXPECT_FALSE(cache->open({.prompt = counting(1), .tokens_max = 64}).has_value());
  cache->check_invariants();
}

TEST(Cache, truncate_gives_blocks_back_and_zeroes_the_forgotten_slots) {
  for (const CacheMode mode : {CacheMode::kContiguous, CacheMode::kPaged}) {
    SCOPED_TRACE(cache_mode_name(mode));
    CacheOptions options = test_options(8);
    options.mode = mode;
    const auto cache = make_cache(options);
    TestSequence sequence = TestSequence::run(*cache, counting(60));
    sequence.truncate(57);
    ASSERT_TRUE(sequence.extend(counting(30, 100)));  // checks that its slots are zero
    sequence.truncate(21);
    EXPECT_EQ(sequence.blocks_held(), mode == CacheMode::kPaged ? 2U : 8U);
    ASSERT_TRUE(sequence.extend(counting(50, 200)));
    EXPECT_TRUE(sequence.bytes_are_right());
    sequence.truncate(0);
    ASSERT_TRUE(sequence.extend(counting(50, 300)));
    EXPECT_TRUE(sequence.bytes_are_right());
    cache->check_invariants();
  }
}

TEST(Cache, a_tail_truncated_while_shared_is_zeroed_before_it_is_written_alone) {
  const auto cache = make_cache(test_options(8));
  TestSequence sequence = TestSequence::run(*cache, counting(10));
  TestSequence other = *sequence.fork();
  sequence.truncate(5);
  EXPECT_TRUE(other.bytes_are_right());
  other.discard();
  ASSERT_TRUE(sequence.extend(counting(1, 100)));  // checks that its slots are zero
  EXPECT_TRUE(sequence.bytes_are_right());
}

TEST(Cache, chains_are_evicted_from_their_end) {
  const auto cache = make_cache(test_options(8));
  {
    const TestSequence old = TestSequence::run(*cache, counting(64));
  }
  {
    const TestSequence sweep = TestSequence::run(*cache, counting(96, 1000));
  }  // 4 free: takes 2
  EXPECT_EQ(cached(*cache, counting(64)), 32U);
  EXPECT_EQ(cache->stats().groups[0].evicted, 2U);
}

TEST(Cache, low_retention_goes_before_high_however_old) {
  const auto cache = make_cache(test_options(8));
  for (const Retention retention : {Retention::kHigh, Retention::kNormal, Retention::kLow}) {
    const auto first = static_cast<TokenId>(retention) * 100;
    TestSequence::run(*cache, {.prompt = counting(32, first), .retention = retention});
  }
  {
    const TestSequence sweep = TestSequence::run(*cache, counting(80, 1000));
  }  // 2 free: takes 3
  EXPECT_EQ(cached(*cache, counting(32, 0)), 0U);  // low
  EXPECT_EQ(cached(*cache, counting(32, 100)), 16U);
  EXPECT_EQ(cached(*cache, counting(32, 200)), 32U);
}

TEST(Cache, reused_blocks_survive_a_sweep) {
  const auto cache = make_cache(test_options(8));
  for (int turn = 0; turn < 2; ++turn) TestSequence::run(*cache, counting(33));
  for (TokenId user = 1; user < 10; ++user) TestSequence::run(*cache, counting(40, user * 1000));
  EXPECT_EQ(cached(*cache, counting(32)), 32U);
}

TEST(Cache, a_pin_keeps_a_prefix_until_it_goes_and_honours_the_cap) {
  CacheOptions options = test_options(16);
  options.pinned_percent_max = 25;
  const auto cache = make_cache(options);
  std::optional<TestSequence> kept = TestSequence::run(*cache, counting(64));
  std::optional<Pin> pin = cache->pin(kept->lease);
  ASSERT_TRUE(pin.has_value());
  EXPECT_EQ(cache->stats().pinned_bytes, 4 * cache->layout().block_bytes());
  TestSequence other = TestSequence::run(*cache, counting(20, 500));
  EXPECT_FALSE(cache->pin(other.lease).has_value());  // a fifth block is over the cap
  const std::optional<Pin> same = cache->pin(kept->lease);
  EXPECT_TRUE(same.has_value());  // takes no more blocks
  other.discard();
  kept.reset();
  for (TokenId user = 1; user < 6; ++user) TestSequence::run(*cache, counting(112, user * 1000));
  EXPECT_EQ(cached(*cache, counting(64)), 64U);
  EXPECT_FALSE(cache->reset().done);
  cache->check_invariants();
}

TEST(Cache, what_was_pinned_can_be_evicted_again) {
  const auto cache = make_cache(test_options(8));
  std::optional<TestSequence> kept = TestSequence::run(*cache, counting(32));
  std::optional<Pin> pin = cache->pin(kept->lease);
  ASSERT_TRUE(pin.has_value());
  kept.reset();
  EXPECT_EQ(cache->blocks_available(), 6U);
  pin.reset();
  EXPECT_EQ(cache->blocks_available(), 8U);
  EXPECT_EQ(cache->stats().pinned_bytes, 0U);
  cache->check_invariants();
}

TEST(Cache, reset_is_refused_while_sequences_are_open_and_truthful_when_done) {
  const auto cache = make_cache(test_options(8));
  std::optional<TestSequence> sequence = TestSequence::run(*cache, counting(40));
  const ResetResult refused = cache->reset();
  EXPECT_FALSE(refused.done);
  EXPECT_EQ(refused.sequences_open, 1U);
  EXPECT_EQ(refused.blocks_freed, 0U);
  sequence.reset();
  EXPECT_EQ(cached(*cache, counting(40)), 40U);
  const ResetResult done = cache->reset();
  EXPECT_TRUE(done.done);
  EXPECT_EQ(done.blocks_freed, 3U);
  EXPECT_EQ(cached(*cache, counting(40)), 0U);
  EXPECT_EQ(cache->stats().nodes, 0U);
  EXPECT_EQ(cache->stats().blocks().of(BlockState::kFree), 8U);
}

TEST(Cache, blocks_that_another_had_promised_can_be_evicted) {
  const auto cache = make_cache(test_options(8));
  TestSequence slow = *TestSequence::open(*cache, {.prompt = counting(48)});
  {
    const TestSequence fast = TestSequence::run(*cache, counting(48));
  }
  {
    const TestSequence sweep = TestSequence::run(*cache, counting(112, 1000));
  }
  cache->check_invariants();
  EXPECT_EQ(cached(*cache, counting(48)), 16U);  // of three blocks two went
  ASSERT_TRUE(slow.compute_prompt());
  EXPECT_TRUE(slow.bytes_are_right());
  EXPECT_EQ(cached(*cache, counting(48)), 48U);
  cache->check_invariants();
}

TEST(Cache, an_audit_finds_and_mends_a_wrong_count_of_owners) {
  const auto cache = make_cache(test_options(8));
  {
    const TestSequence sequence = TestSequence::run(*cache, counting(40));
  }
  ASSERT_TRUE(cache->audit(/*repair=*/false).ok());
  CacheTesting::pool(*cache).add_reference(BlockId{0});  // of nobody: the block would leak
  CacheTesting::index(*cache).add_reference(NodeId{1});
  const AuditReport found = cache->audit(/*repair=*/true);
  EXPECT_EQ(found.block_references_wrong, 1U);
  EXPECT_EQ(found.node_references_wrong, 1U);
  EXPECT_TRUE(cache->audit(/*repair=*/false).ok());
  cache->check_invariants();
}

TEST(Cache, an_audit_finds_and_mends_a_block_missing_from_the_eviction_queue) {
  const auto cache = make_cache(test_options(8));
  {
    const TestSequence sequence = TestSequence::run(*cache, counting(40));
  }
  CacheTesting::queue(*cache).remove(*CacheTesting::queue(*cache).next());
  EXPECT_EQ(cache->audit(/*repair=*/false).queue_entries_wrong, 1U);
  EXPECT_EQ(cache->audit(/*repair=*/true).queue_entries_wrong, 1U);
  EXPECT_TRUE(cache->audit(/*repair=*/false).ok());
  EXPECT_EQ(cache->blocks_available(), 8U);
}

}  // namespace
}  // namespace kvasir::kv
