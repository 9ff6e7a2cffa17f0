#include <gtest/gtest.h>

#include <map>
#include <random>

#include "sched/testing_load.h"

namespace kvasir::sched {
namespace {

TEST(Scheduler, a_prompt_is_cut_in_chunks_and_samples_once_at_its_end) {
  Load load(64, 4, 10);
  load.add(counting(25));
  std::vector<uint32_t> chunks;
  for (int step = 0; step < 3; ++step) {
    const auto rows = load.step();
    ASSERT_EQ(rows.size(), 1U);
    EXPECT_EQ(rows[0].samples, step == 2);
    chunks.push_back(rows[0].tokens);
  }
  EXPECT_EQ(chunks, (std::vector<uint32_t>{10, 10, 5}));
  const auto decode = load.step();
  EXPECT_EQ(decode[0].tokens, 1U);
  EXPECT_EQ(decode[0].first_position, 25U);
}

TEST(Scheduler, decodes_run_in_every_step_beside_a_long_prompt) {
  Load load(64, 4, 8);
  const Slot first = load.add(counting(1));
  load.step();
  const Slot second = load.add(counting(100, 1000));
  for (int step = 0; step < 5; ++step) {
    const auto rows = load.step();
    ASSERT_EQ(slots_of(rows), (std::vector<Slot>{first, second}));
    EXPECT_EQ(rows[0].tokens, 1U);
    EXPECT_EQ(rows[1].tokens, 8U);
  }
}

TEST(Scheduler, higher_priorities_go_first_then_earlier_arrivals) {
  Load load(64, 3, 8);
  const Slot low = load.add(counting(4, 0), 10, -1);
  const Slot a = load.add(counting(4, 100), 10, 5);
  const Slot b = load.add(counting(4, 200), 10, 5);
  EXPECT_EQ(slots_of(load.step()), (std::vector<Slot>{a, b}));
  EXPECT_EQ(slots_of(load.step()), (std::vector<Slot>{a, b, low}));
}

TEST(Scheduler, nobody_overtakes_a_request_that_waits_for_blocks) {
  Load load(8, 4, 128);
  const Slot big = load.add(counting(80), 5);
  load.step();
  const Slot bigger = load.add(counting(100, 1000), 5);
  const Slot small = load.add(counting(1, 2000), 5);
  EXPECT_EQ(slots_of(load.step()), (std::vector<Slot>{big}));
  EXPECT_EQ(load.scheduler.waiting(), 2U);
  load.scheduler.remove(big);
  EXPECT_EQ(slots_of(load.step()), (std::vector<Slot>{bigger}));
  load.scheduler.remove(bigger);
  EXPECT_EQ(slots_of(load.step()), (std::vector<Slot>{small}));
}

TEST(Scheduler, admission_leaves_a_watermark_beside_running_sequences) {
  Load load(64, 4, 2048);
  load.add(counting(32 * kBlockTokens - 8, 0), 8);
  load.step();
  load.add(counting(30 * kBlockTokens, 1000), 1);  // 32 of 64 left: 30 and 3 are too many
  EXPECT_EQ(load.scheduler.running(), 1U);
  load.step();
  EXPECT_EQ(load.scheduler.running(), 1U);
  load.add(counting(29 * kBlockTokens, 2000), 1, /*priority=*/1);
  load.step();
  EXPECT_EQ(load.scheduler.running(), 2U);
}

TEST(Scheduler, a_prompt_cached_in_the_whole_pool_is_admitted_again) {
  Load load(4, 2, 64);
  for (int turn = 0; turn < 3; ++turn) {
    const Slot slot = load.add(counting(64), 0);
    const auto rows = load.scheduler.plan();
    ASSERT_EQ(rows.size(), 1U) << "turn " << turn;
    EXPECT_EQ(rows[0].tokens, turn == 0 ? 64U : 1U);
    load.scheduler.complete(rows[0]);
    load.scheduler.remove(slot);
  }
}

TEST(Scheduler, shortage_preempts_the_last_in_order_which_resumes_where_it_was) {
  Load load(8, 4, 64);
  const Slot first = load.add(counting(40, 0), 60);
  const Slot last = load.add(counting(40, 1000), 30);
  while (load.scheduler.stats().preemptions == 0) ASSERT_FALSE(load.step().empty());
  EXPECT_TRUE(load.scheduler.is_running(first));
  EXPECT_FALSE(load.scheduler.is_running(last));
  EXPECT_EQ(load.scheduler.stats_of(last).preemptions, 1U);
  const auto size = static_cast<uint32_t>(load.scheduler.tokens(last).size());
  load.scheduler.remove(first);
  const auto rows = load.step();
  ASSERT_EQ(slots_of(rows), (std::vector<Slot>{last}));
  EXPECT_GE(rows[0].first_position, 32U);  // most of it survived
  EXPECT_EQ(rows[0].first_position + rows[0].tokens, size);
  EXPECT_TRUE(rows[0].samples);
}

TEST(Scheduler, equal_prompts_are_computed_once_and_waiters_compute_their_own_tokens) {
  Load load(64, 4, 16);
  const Slot owner = load.add(counting(64));
  load.step();
  std::vector<TokenId> other = counting(64);
  other.push_back(5000);
  const Slot waiter = load.add(other);
  for (int step = 0; step < 3; ++step) EXPECT_EQ(slots_of(load.step()), std::vector<Slot>{owner});
  EXPECT_EQ(load.scheduler.stats().promise_waits, 1U);
  load.step();
  EXPECT_TRUE(load.scheduler.is_running(waiter));
  EXPECT_EQ(load.computed[waiter], 1U);
  EXPECT_EQ(load.scheduler.stats_of(waiter).match->tokens_cached, 64U);
  EXPECT_GT(load.scheduler.stats_of(waiter).promise_wait_us, 0U);
}

// A row takes 10 us: with 160 rows of its own it waits for 2,400.
TEST(Scheduler, a_waiter_gives_up_after_one_and_a_half_times_its_own_cost) {
  for (const bool late : {false, true}) {
    Load load(64, 4, 16);
    load.add(counting(160, 1000), 0);
    for (int step = 0; step < 10; ++step) load.step();  // learns what a row takes
    const Slot owner = load.add(counting(400));
    load.scheduler.plan();  // promises
    const Slot waiter = load.add(counting(160));
    for (const PlannedRows& row : {PlannedRows{.slot = owner, .tokens = 15}}) {
      load.clock.advance(row.tokens * kRowUs);
      load.scheduler.complete(row);
    }
    const auto waiting = load.step();
    EXPECT_FALSE(load.scheduler.is_running(waiter));
    load.clock.advance(late ? 2'300 : 2'000);  // the step took 160
    load.step();
    EXPECT_EQ(load.scheduler.stats().promise_waits_expired, late ? 1U : 0U);
  }
}

TEST(Scheduler, the_owner_of_a_promise_inherits_the_priority_of_who_waits) {
  Load load(64, 4, 16);
  const Slot other = load.add(counting(200, 1000), 10, 3);
  const Slot owner = load.add(counting(100), 10, 0);
  while (!load.scheduler.is_running(owner)) load.step();
  load.add(counting(200, 3000), 10, 3);
  const Slot urgent = load.add(counting(100), 10, 9);
  load.step();
  EXPECT_FALSE(load.scheduler.is_running(urgent));
  EXPECT_EQ(load.step().front().slot, owner);  // before `other`
  EXPECT_TRUE(load.scheduler.is_running(other));
}

TEST(Scheduler, cancelling_the_owner_wakes_who_waits) {
  Load load(64, 4, 16);
  const Slot owner = load.add(counting(200));
  load.step();
  const Slot waiter = load.add(counting(200));
  EXPECT_EQ(slots_of(load.step()), std::vector<Slot>{owner});
  load.scheduler.remove(owner);
  const auto rows = load.step();
  ASSERT_EQ(slots_of(rows), std::vector<Slot>{waiter});
  EXPECT_EQ(rows[0].first_position, 32U);  // what the owner had computed
}

TEST(Scheduler, forks_have_places_before_their_parent_is_admitted) {
  Load load(64, 4, 64);
  load.add(counting(10, 1000));
  load.add(counting(10, 2000));
  load.step();
  const Slot parent = load.scheduler.add({.tokens = counting(20), .tokens_max = 40, .forks = 2});
  load.step();
  EXPECT_FALSE(load.scheduler.is_running(parent));  // two of four places are left, it needs three
  const std::vector<PlannedRows> rows = load.step();
  load.scheduler.remove(rows[0].slot);
  const auto plan = load.scheduler.plan();
  const std::vector<PlannedRows> planned(plan.begin(), plan.end());
  for (const PlannedRows& row : planned) load.scheduler.complete(row);
  ASSERT_TRUE(load.scheduler.is_running(parent));
  const std::vector<Slot> forks(load.scheduler.forks(parent).begin(),
                                load.scheduler.forks(parent).end());
  ASSERT_EQ(forks.size(), 2U);
  for (const Slot fork : forks) {
    load.scheduler.fork(parent, fork);
    EXPECT_TRUE(load.scheduler.is_running(fork));
    EXPECT_TRUE(std::ranges::equal(load.scheduler.tokens(fork), load.scheduler.tokens(parent)));
    load.scheduler.check_invariants();
  }
  EXPECT_EQ(load.scheduler.running(), 4U);
  EXPECT_EQ(load.cache->stats().blocks().referenced(), 3U);  // forks share both blocks
}

TEST(Scheduler, scored_prompts_never_ask_for_more_logit_rows_than_there_are) {
  Load load(64, 4, 64);
  for (TokenId i = 0; i < 4; ++i) {
    load.scheduler.add(
        {.tokens = counting(9, i * 100), .tokens_max = 12, .score_prompt = i % 2 == 0});
  }
  uint32_t scored = 0;
  for (int step = 0; step < 40 && !load.scheduler.idle(); ++step) {
    uint32_t logit_rows = 0;
    const auto plan = load.scheduler.plan();
    for (const PlannedRows& row : std::vector<PlannedRows>(plan.begin(), plan.end())) {
      if (row.scores) scored += row.tokens;
      logit_rows += row.scores ? row.tokens : row.samples ? 1 : 0;
      load.scheduler.complete(row);
      if (load.scheduler.tokens(row.slot).size() == 12) {
        load.scheduler.remove(row.slot);
      } else if (row.samples) {
        load.scheduler.append_token(row.slot, 7);
      }
    }
    EXPECT_LE(logit_rows, 4U);
  }
  EXPECT_EQ(scored, 18U);
  EXPECT_TRUE(load.scheduler.idle());
}

// Random arrivals with common prefixes, priorities and cancels in a small pool.
class RandomLoad {
 public:
  explicit RandomLoad(uint32_t seed)
      : random_(seed), load_(8 + below(24), 1 + below(6), 1 + below(50)) {}

  void run() {
    uint32_t left = 40;
    for (int step = 0; left > 0 || !load_.scheduler.idle(); ++step) {
      ASSERT_LT(step, 20000) << "a request starves";
      if (left > 0 && below(3) == 0) {
        arrive();
        --left;
      }
      check_step(load_.step());
      note_preemptions();
      if (!twins_.empty() && below(60) == 0) end(twins_.begin()->first);
    }
    EXPECT_EQ(load_.cache->stats().blocks().referenced(), 0U);
  }

 private:
  struct Twin {
    uint32_t tokens_max = 0;
    uint32_t preemptions = 0;
    size_t size_when_preempted = 0;
  };

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

  void arrive() {
    std::vector<TokenId> tokens = counting(below(50), static_cast<TokenId>(below(3)) * 1000);
    const auto own = counting(1 + below(20), static_cast<TokenId>(below(1000)) * 50);
    tokens.insert(tokens.end(), own.begin(), own.end());
    const uint32_t answer = below(40);
    const auto size = static_cast<uint32_t>(tokens.size());
    const Slot slot = load_.add(std::move(tokens), answer + 1, static_cast<int32_t>(below(3)));
    twins_[slot] = {.tokens_max = size + answer};
  }

  void check_step(const std::vector<PlannedRows>& rows) {
    for (const PlannedRows& row : rows) {
      ASSERT_TRUE(twins_.contains(row.slot));
      const size_t size = load_.scheduler.tokens(row.slot).size();
      const size_t size_before = size - (row.samples ? 1 : 0);
      ASSERT_EQ(row.samples, row.first_position + row.tokens == size_before);
      if (size > twins_[row.slot].tokens_max) end(row.slot);
    }
  }

  void note_preemptions() {
    for (auto& [slot, twin] : twins_) {
      const uint32_t preemptions = load_.scheduler.stats_of(slot).preemptions;
      if (preemptions == twin.preemptions) continue;
      const size_t size = load_.scheduler.tokens(slot).size();
      ASSERT_EQ(preemptions, twin.preemptions + 1);
      ASSERT_GT(size, twin.size_when_preempted) << "preempted twice without progress";
      twin.preemptions = preemptions;
      twin.size_when_preempted = size;
    }
  }

  void end(Slot slot) {
    load_.scheduler.remove(slot);
    twins_.erase(slot);
  }

  std::mt19937 random_;
  Load load_;
  std::map<Slot, Twin> twins_;
};

TEST(Scheduler, random_load_always_drains_and_preempts_nobody_twice_without_progress) {
  for (uint32_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    RandomLoad(seed).run();
  }
}

}  // namespace
}  // namespace kvasir::sched
