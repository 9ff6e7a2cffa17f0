// What the cache finds again, for whom, and why not more.
#include <gtest/gtest.h>

#include "kv/testing.h"

namespace kvasir::kv {
namespace {

uint32_t missed(const TestSequence& sequence, MissReason reason) {
  return sequence.match.missed[static_cast<size_t>(reason)];
}

TEST(CacheMatch, finds_every_length_of_a_finished_text_to_the_token) {
  for (const DigestFunction digest : {sha256_chain, eight_bit_digest}) {
    CacheOptions options = test_options(64);
    options.digest = digest;
    const auto cache = make_cache(options);
    {
      const TestSequence text = TestSequence::run(*cache, counting(40));
    }  // 16, 16 and a short 8
    for (uint32_t length = 0; length <= 40; ++length) {
      SCOPED_TRACE(length);
      TestSequence longer =
          TestSequence::run(*cache, prefix(counting(40), length) + counting(9, 5000));
      EXPECT_EQ(longer.match.tokens_cached, length);
      EXPECT_TRUE(longer.bytes_are_right());
      longer.truncate(0);  // leaves nothing longer behind
      if (length == 0) continue;
      TestSequence same = TestSequence::run(*cache, prefix(counting(40), length));
      EXPECT_EQ(same.match.tokens_cached, length - 1);
      EXPECT_TRUE(same.bytes_are_right());
      cache->check_invariants();
    }
  }
}

TEST(CacheMatch, blocks_are_found_while_their_owner_runs_and_its_tail_when_it_ends) {
  const auto cache = make_cache(test_options(16));
  const std::vector<TokenId> asked = counting(40) + counting(1, 99);
  std::optional<TestSequence> owner = TestSequence::run(*cache, counting(40));
  EXPECT_EQ(cache->probe({.prompt = asked}).tokens_cached, 32U);
  owner.reset();
  EXPECT_EQ(cache->probe({.prompt = asked}).tokens_cached, 40U);
}

TEST(CacheMatch, a_short_block_goes_when_a_longer_one_begins_with_it) {
  const auto cache = make_cache(test_options(16));
  {
    const TestSequence turn = TestSequence::run(*cache, counting(20));
  }
  {
    const TestSequence turn = TestSequence::run(*cache, counting(25));
  }
  EXPECT_EQ(cache->stats().blocks().of(BlockState::kCached), 2U);
  {
    const TestSequence turn = TestSequence::run(*cache, counting(40));
  }
  EXPECT_EQ(cache->stats().blocks().of(BlockState::kCached), 3U);
}

TEST(CacheMatch, publishing_only_when_finished_hides_running_blocks) {
  CacheOptions options = test_options(16);
  options.publish = Publish::kWhenFinished;
  const auto cache = make_cache(options);
  const std::vector<TokenId> asked = counting(41);
  std::optional<TestSequence> owner = TestSequence::run(*cache, counting(40));
  const Probe running = cache->probe({.prompt = asked});
  EXPECT_EQ(running.tokens_cached + running.tokens_promised, 0U);
  owner.reset();
  EXPECT_EQ(cache->probe({.prompt = asked}).tokens_cached, 40U);
}

TEST(CacheMatch, equal_blocks_computed_twice_are_kept_once) {
  const auto cache = make_cache(test_options(16));
  const TestSequence a = TestSequence::run(*cache, counting(32));
  const TestSequence b = TestSequence::run(*cache, {.prompt = counting(32), .reads_cache = false});
  EXPECT_EQ(b.match.tokens_cached, 0U);
  EXPECT_EQ(cache->stats().blocks_deduplicated, 2U);
  EXPECT_EQ(cache->stats().blocks().referenced(), 2U);
  EXPECT_EQ(a.block(1), b.block(1));
  EXPECT_TRUE(b.bytes_are_right());
}

TEST(CacheMatch, tenants_and_adapters_never_share) {
  const auto cache = make_cache(test_options(32));
  CacheDomain adapted = tenant(1);
  adapted.adapter[0] = 1;
  {
    TestSequence::run(*cache, {.domain = tenant(1), .prompt = counting(33)});
  }
  for (const CacheDomain& domain : {tenant(2), adapted, CacheDomain{}}) {
    const TestSequence other =
        TestSequence::run(*cache, {.domain = domain, .prompt = counting(33)});
    EXPECT_EQ(other.match.tokens_cached, 0U);
    EXPECT_EQ(missed(other, MissReason::kDomain), 32U);
    EXPECT_EQ(missed(other, MissReason::kNeverSeen), 1U);
  }
}

TEST(CacheMatch, promises_are_seen_while_their_owner_computes_them) {
  const auto cache = make_cache(test_options(16));
  const std::vector<TokenId> asked = counting(53);
  TestSequence owner = *TestSequence::open(*cache, {.prompt = counting(50)});
  Probe probe = cache->probe({.prompt = asked});
  EXPECT_EQ(probe.tokens_cached, 0U);
  EXPECT_EQ(probe.tokens_promised, 48U);
  ASSERT_TRUE(probe.promised.has_value());
  EXPECT_TRUE(cache->is_promised(*probe.promised));
  EXPECT_TRUE(cache->has_promised(owner.lease, *probe.promised));
  ASSERT_TRUE(owner.extend(counting(20)));
  probe = cache->probe({.prompt = asked});
  EXPECT_EQ(probe.tokens_cached, 16U);
  EXPECT_EQ(probe.tokens_promised, 32U);
  ASSERT_TRUE(owner.compute_prompt());
  EXPECT_FALSE(cache->is_promised(*probe.promised));
  EXPECT_EQ(cache->stats().promises_kept, 3U);
  EXPECT_EQ(cache->probe({.prompt = asked}).tokens_cached, 48U);
}

TEST(CacheMatch, promises_end_with_their_owner) {
  const auto cache = make_cache(test_options(16));
  std::optional<TestSequence> owner = TestSequence::open(*cache, {.prompt = counting(50)});
  const Probe probe = cache->probe({.prompt = counting(53)});
  ASSERT_TRUE(owner->extend(counting(16)));
  owner.reset();
  EXPECT_FALSE(cache->is_promised(*probe.promised));
  const Probe after = cache->probe({.prompt = counting(53)});
  EXPECT_EQ(after.tokens_cached, 16U);
  EXPECT_EQ(after.tokens_promised, 0U);
  cache->check_invariants();
}

TEST(CacheMatch, each_block_is_promised_by_one_sequence_only) {
  const auto cache = make_cache(test_options(16));
  TestSequence first = *TestSequence::open(*cache, {.prompt = counting(48)});
  TestSequence second = *TestSequence::open(*cache, {.prompt = counting(48)});
  const Probe probe = cache->probe({.prompt = counting(49)});
  EXPECT_TRUE(cache->has_promised(first.lease, *probe.promised));
  EXPECT_FALSE(cache->has_promised(second.lease, *probe.promised));
  ASSERT_TRUE(second.compute_prompt());  // the faster one serves the promise
  ASSERT_TRUE(first.compute_prompt());
  EXPECT_EQ(first.block(2), second.block(2));
  EXPECT_EQ(cache->stats().blocks().referenced(), 3U);
}

TEST(CacheMatch, a_prompt_never_seen_and_one_seen_to_its_end_say_so) {
  const auto cache = make_cache(test_options(16));
  const TestSequence first = TestSequence::run(*cache, counting(40));
  EXPECT_EQ(missed(first, MissReason::kNeverSeen), 40U);
  EXPECT_FALSE(first.match.diverged_at.has_value());
  const TestSequence again = TestSequence::run(*cache, counting(33));
  EXPECT_EQ(again.match.tokens_cached, 32U);
  EXPECT_EQ(missed(again, MissReason::kLastToken), 1U);
  const CacheStats stats = cache->stats();
  EXPECT_EQ(stats.prompt_tokens, 73U);
  EXPECT_EQ(stats.tokens_hit, 32U);
}

TEST(CacheMatch, an_edited_prompt_says_at_which_token_it_diverged) {
  const auto cache = make_cache(test_options(32));
  {
    const TestSequence first = TestSequence::run(*cache, counting(60));
  }
  for (const uint32_t edit : {1U, 15U, 16U, 20U, 32U, 47U}) {
    SCOPED_TRACE(edit);
    const TestSequence edited =
        TestSequence::run(*cache, counting(edit) + counting(30, 1000 + static_cast<int>(edit)));
    EXPECT_EQ(edited.match.tokens_cached, edit);
    EXPECT_EQ(edited.match.diverged_at, edit);
    EXPECT_EQ(missed(edited, MissReason::kDiverged), 30U);
  }
}

TEST(CacheMatch, a_longer_prompt_has_not_diverged) {
  const auto cache = make_cache(test_options(16));
  {
    const TestSequence first = TestSequence::run(*cache, counting(40));
  }
  const TestSequence longer = TestSequence::run(*cache, counting(60));
  EXPECT_FALSE(longer.match.diverged_at.has_value());
  EXPECT_EQ(missed(longer, MissReason::kNeverSeen), 20U);
}

TEST(CacheMatch, evicted_blocks_are_missed_as_evicted) {
  const auto cache = make_cache(test_options(7));
  {
    const TestSequence first = TestSequence::run(*cache, counting(64));
  }
  {
    const TestSequence sweep = TestSequence::run(*cache, counting(112, 1000));
  }
  const TestSequence again = TestSequence::run(*cache, counting(70));
  EXPECT_EQ(again.match.tokens_cached, 0U);
  EXPECT_EQ(missed(again, MissReason::kEvicted), 64U);
  EXPECT_EQ(missed(again, MissReason::kNeverSeen), 6U);
}

TEST(CacheMatch, a_request_that_reads_no_cache_misses_as_not_allowed) {
  const auto cache = make_cache(test_options(16));
  {
    const TestSequence first = TestSequence::run(*cache, counting(40));
  }
  const TestSequence fresh =
      TestSequence::run(*cache, {.prompt = counting(40), .reads_cache = false});
  EXPECT_EQ(missed(fresh, MissReason::kNotAllowed), 40U);
}

// Five slabs: two for seven full blocks; six window blocks fit into the others, and the first of
// seven goes.
TEST(CacheMatch, what_a_window_let_go_of_is_missed_as_window) {
  const auto cache = make_cache(windowed_options(5));
  {
    TestSequence text = *TestSequence::open(*cache, {.prompt = counting(112)});
    for (TokenId first = 0; first < 112; first += 16) {
      ASSERT_TRUE(text.extend(counting(16, first)));
    }
  }
  const TestSequence early =
      *TestSequence::open(*cache, {.prompt = counting(20) + counting(5, 1000)});
  EXPECT_EQ(early.match.tokens_cached, 0U);
  EXPECT_EQ(missed(early, MissReason::kWindow), 20U);
  const TestSequence late =
      *TestSequence::open(*cache, {.prompt = counting(90) + counting(5, 1000)});
  EXPECT_EQ(late.match.tokens_cached, 90U);
  EXPECT_TRUE(late.bytes_are_right());
  cache->check_invariants();
}

}  // namespace
}  // namespace kvasir::kv
