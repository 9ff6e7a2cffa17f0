// Fail the n-th: for every n, the n-th reservation of a run meets a pool that others have emptied.
#include <gtest/gtest.h>

#include "kv/testing.h"

namespace kvasir::kv {
namespace {

// All that a failed reservation must not change.
struct Snapshot {
  std::vector<std::array<uint32_t, kBlockStates>> states;  // by group
  uint32_t blocks_logical = 0;
  uint64_t blocks_copied = 0;
  std::vector<std::vector<std::byte*>> blocks;  // of the sequence, by group
  bool operator==(const Snapshot&) const = default;
};

Snapshot snapshot(const Cache& cache, const TestSequence& sequence) {
  const CacheStats stats = cache.stats();
  Snapshot all{.blocks_logical = stats.blocks_logical, .blocks_copied = stats.blocks_copied};
  for (const GroupStats& group : stats.groups) all.states.push_back(group.blocks.by_state);
  const View view = cache.view(sequence.lease);
  for (const GroupView& group : view.groups) {
    all.blocks.emplace_back(group.blocks.begin(), group.blocks.end());
  }
  return all;
}

// Sequences that take every block there is.
std::vector<TestSequence> exhaust(Cache& cache) {
  std::vector<TestSequence> hogs;
  for (TokenId first = 10'000;; first += 1000) {
    const std::vector<TokenId> one = counting(1, first);
    std::optional<TestSequence> hog =
        TestSequence::open(cache, {.prompt = one, .reads_cache = false});
    CHECK(hog.has_value());
    while (hog->tokens.size() < 96 && hog->extend(counting(16, first))) continue;
    const bool full = hog->tokens.size() < 96;
    hogs.push_back(*std::move(hog));
    if (full) return hogs;
  }
}

// A run with growth in chunks, a borrowed tail and a fork that is copied on write.
class Script {
 public:
  Script(const CacheOptions& options, uint32_t failing)
      : cache_(make_cache(options)), failing_(failing) {}

  // How many reservations there were.
  uint32_t run() {
    {
      TestSequence::run(*cache_, counting(20));
    }
    TestSequence a = *TestSequence::open(*cache_, {.prompt = counting(18) + counting(40, 500)});
    extend(a, counting(5, 500));
    extend(a, counting(20, 505));
    TestSequence b = *a.fork();
    extend(b, counting(1, 700));
    extend(a, counting(15, 525));
    TestSequence c = *b.fork();
    b.discard();
    extend(c, counting(20, 800));
    c.truncate(57);  // within the window
    extend(c, counting(16, 900));
    EXPECT_TRUE(a.bytes_are_right());
    EXPECT_TRUE(c.bytes_are_right());
    return reservations_;
  }
  bool has_failed() const { return has_failed_; }

 private:
  void extend(TestSequence& sequence, const std::vector<TokenId>& more) {
    if (reservations_++ == failing_) {
      fail(sequence, more);
    } else {
      ASSERT_TRUE(sequence.extend(more));
    }
  }
  void fail(TestSequence& sequence, const std::vector<TokenId>& more) {
    std::vector<TestSequence> hogs = exhaust(*cache_);
    const Snapshot before = snapshot(*cache_, sequence);
    const bool fits = sequence.extend(more);  // nothing new may be needed
    cache_->check_invariants();
    EXPECT_TRUE(sequence.bytes_are_right());
    for (TestSequence& hog : hogs) EXPECT_TRUE(hog.bytes_are_right());
    if (!fits) {
      has_failed_ = true;
      EXPECT_EQ(snapshot(*cache_, sequence), before);
    }
    for (TestSequence& hog : hogs) hog.discard();
    ASSERT_TRUE(fits || sequence.extend(more));
  }

  std::unique_ptr<Cache> cache_;
  uint32_t failing_;
  uint32_t reservations_ = 0;
  bool has_failed_ = false;
};

void fail_each(const CacheOptions& options) {
  const uint32_t reservations = Script(options, UINT32_MAX).run();
  uint32_t failed = 0;
  for (uint32_t n = 0; n < reservations; ++n) {
    SCOPED_TRACE(testing::Message() << "reservation " << n);
    Script script(options, n);
    EXPECT_EQ(script.run(), reservations);
    failed += script.has_failed() ? 1 : 0;
  }
  EXPECT_GE(failed, 4U);
}

TEST(CacheShortage, a_failed_reservation_changes_nothing_and_succeeds_later) {
  fail_each(test_options(16));
}

TEST(CacheShortage, a_failed_reservation_of_two_groups_changes_nothing_and_succeeds_later) {
  fail_each(windowed_options(8));
}

}  // namespace
}  // namespace kvasir::kv
