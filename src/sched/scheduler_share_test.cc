// Who gets on beside others: priorities, tenants, cached prefixes, the pace of answers, pauses.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "sched/testing_load.h"

namespace kvasir::sched {
namespace {

SequenceSpec spec_of(TokenId first, uint32_t tokens, uint32_t answer, uint32_t tenant = 0) {
  return {.tokens = counting(tokens, first), .tokens_max = tokens + answer, .tenant = tenant};
}

Load shared_load(uint32_t sequences_max, std::vector<double> weights) {
  return Load(256, {.requests_max = 64,
                    .sequences_max = sequences_max,
                    .prefill_chunk = 64,
                    .logit_rows_max = sequences_max,
                    .tenant_weights = std::move(weights)});
}

TEST(SchedulerShare, a_higher_priority_takes_the_place_of_a_lower_one) {
  Load load(64, 2, 64);
  const Slot a = load.add(counting(4, 0), 100, 0);
  const Slot b = load.add(counting(4, 100), 100, 0);
  load.step();
  const Slot urgent = load.add(counting(4, 200), 100, 1);
  load.step();
  EXPECT_TRUE(load.scheduler.is_running(urgent));
  EXPECT_TRUE(load.scheduler.is_running(a));
  EXPECT_FALSE(load.scheduler.is_running(b)) << "the later one gives way";
  EXPECT_EQ(load.scheduler.stats_of(b).preemptions, 1U);
}

TEST(SchedulerShare, a_priority_counts_among_the_requests_of_its_tenant_only) {
  Load load = shared_load(2, {1.0, 1.0});
  const Slot mine = load.add(spec_of(0, 4, 100, 0));
  const Slot yours = load.add(spec_of(100, 4, 100, 1));
  load.step();
  SequenceSpec pushing = spec_of(200, 4, 100, 1);
  pushing.priority = 1000;
  const Slot urgent = load.add(std::move(pushing));
  load.step();
  EXPECT_TRUE(load.scheduler.is_running(mine));
  EXPECT_TRUE(load.scheduler.is_running(urgent));
  EXPECT_FALSE(load.scheduler.is_running(yours));
}

TEST(SchedulerShare, nobody_overtakes_a_request_that_needs_several_places) {
  Load load(256, 4, 64);
  TokenId next = 0;
  std::array<Slot, 4> running{};
  for (Slot& slot : running) slot = load.add(counting(4, next += 100), 100);
  load.step();
  SequenceSpec wide = spec_of(9000, 20, 20);
  wide.forks = 2;
  const Slot parent = load.add(std::move(wide));
  for (size_t i = 0; i < running.size(); ++i) {
    load.add(counting(4, next += 100), 100);  // it could have the place that becomes free
    load.step();
    EXPECT_EQ(load.scheduler.is_running(parent), i > 2) << i;
    load.scheduler.remove(running[i]);
  }
}

TEST(SchedulerShare, an_urgent_request_for_several_places_takes_one_in_each_step) {
  Load load(256, 4, 64);
  TokenId next = 0;
  for (int i = 0; i < 8; ++i) load.add(counting(4, next += 100), 100);
  load.step();
  SequenceSpec wide = spec_of(9000, 20, 20);
  wide.forks = 2;
  wide.priority = 1;
  const Slot parent = load.add(std::move(wide));
  for (int step = 0; step < 4; ++step) load.step();
  EXPECT_TRUE(load.scheduler.is_running(parent));
  EXPECT_EQ(load.scheduler.stats().preemptions, 3U);
}

TEST(SchedulerShare, a_flooding_tenant_gives_up_what_is_beyond_its_share) {
  Load load = shared_load(4, {1.0, 1.0});
  for (TokenId i = 0; i < 8; ++i) load.add(spec_of(i * 100, 4, 100, 0));
  load.step();
  EXPECT_EQ(load.scheduler.running(), 4U);
  std::array<Slot, 3> quiet{};
  for (size_t i = 0; i < 3; ++i) {
    quiet[i] = load.add(spec_of(5000 + static_cast<TokenId>(i) * 100, 4, 100, 1));
  }
  for (int step = 0; step < 4; ++step) load.step();
  EXPECT_TRUE(load.scheduler.is_running(quiet[0]));
  EXPECT_TRUE(load.scheduler.is_running(quiet[1]));
  EXPECT_FALSE(load.scheduler.is_running(quiet[2])) << "half of the places is its share";
}

TEST(SchedulerShare, places_stay_as_they_are_once_they_are_shared) {
  Load load = shared_load(4, {1.0, 1.0});
  for (TokenId i = 0; i < 8; ++i) load.add(spec_of(i * 100, 4, 100, static_cast<uint32_t>(i % 2)));
  for (int step = 0; step < 50; ++step) load.step();
  EXPECT_EQ(load.scheduler.stats().preemptions, 0U);
}

TEST(SchedulerShare, rows_of_unequal_tenants_follow_their_weights) {
  Load load = shared_load(2, {1.0, 3.0});
  std::array<uint32_t, 2> computed{};
  std::array<uint32_t, 2> waiting{};
  std::map<Slot, uint32_t> tenant_of;
  TokenId next = 0;
  for (int step = 0; step < 3000; ++step) {
    for (uint32_t tenant = 0; tenant < 2; ++tenant) {
      while (waiting[tenant] < 4) {
        tenant_of[load.add(spec_of(next += 100, 40, 1, tenant))] = tenant;
        ++waiting[tenant];
      }
    }
    for (const PlannedRows& rows : load.step()) {
      const uint32_t tenant = tenant_of.at(rows.slot);
      computed[tenant] += rows.tokens;
      if (load.scheduler.tokens(rows.slot).size() < 41) continue;
      load.scheduler.remove(rows.slot);
      --waiting[tenant];
    }
  }
  EXPECT_NEAR(static_cast<double>(computed[1]) / computed[0], 3.0, 0.3);
}

TEST(SchedulerShare, prompts_leave_answers_their_pace) {
  Load load(256, {.requests_max = 8,
                  .sequences_max = 4,
                  .prefill_chunk = 128,
                  .logit_rows_max = 4,
                  .step_target_us = 40 * kRowUs});
  load.add(counting(100), 200);
  load.step();  // a prompt alone: the cost of its rows becomes known
  load.step();  // a step of one row, too
  const Slot prompt = load.add(counting(200, 1000), 10);
  const auto rows = load.step();
  ASSERT_EQ(rows.size(), 2U);
  EXPECT_EQ(rows[0].tokens, 1U) << "the answer goes on";
  EXPECT_EQ(rows[1].slot, prompt);
  EXPECT_GE(rows[1].tokens, 30U);
  EXPECT_LE(rows[1].tokens, 40U);
}

// Steps of 40 rows; the second tenant has weight 1.
SchedulerLimits shared_by_two(uint32_t sequences_max, double first_weight) {
  return {.requests_max = 64,
          .sequences_max = sequences_max,
          .prefill_chunk = 128,
          .logit_rows_max = sequences_max,
          .step_target_us = 40 * kRowUs,
          .tenant_weights = {first_weight, 1.0}};
}

TEST(SchedulerShare, answers_beyond_a_share_leave_three_of_four_steps_to_prompts_of_others) {
  SchedulerLimits limits = shared_by_two(64, 1.0);
  limits.prefill_chunk = 40;
  Load load(1024, limits);
  for (TokenId i = 0; i < 40; ++i) load.add(counting(8, 100 * i), 300);
  for (int step = 0; step < 60; ++step) load.step();
  ASSERT_EQ(load.scheduler.running(), 40U) << "of 64; 32 are its share beside another";
  const Slot quiet = load.add({.tokens = counting(300, 9000), .tokens_max = 320, .tenant = 1});
  std::vector<bool> alone;
  alone.reserve(6);
  for (int step = 0; step < 6; ++step) alone.push_back(slots_of(load.step()) == std::vector{quiet});
  EXPECT_EQ(alone, (std::vector{true, true, true, false, true, true}));
  for (int step = 0; step < 12; ++step) load.step();
  EXPECT_GT(load.step().size(), 20U) << "its answer goes on among theirs";
}

TEST(SchedulerShare, steps_are_short_while_a_tenant_holds_more_than_its_share) {
  Load load(1024, shared_by_two(32, 1.0));
  for (TokenId i = 0; i < 20; ++i) load.add(counting(8, 100 * i), 300);
  for (int step = 0; step < 60; ++step) load.step();
  const Slot quiet = load.add({.tokens = counting(20, 9000), .tokens_max = 320, .tenant = 1});
  for (int step = 0; step < 6; ++step) load.step();
  const Slot prompt = load.add(counting(400, 20'000), 10);
  const auto prompt_rows = [&] {
    const auto rows = load.step();
    const auto found = std::ranges::find(rows, prompt, &PlannedRows::slot);
    return found == rows.end() ? 0 : found->tokens;
  };
  EXPECT_EQ(prompt_rows(), 8U);
  EXPECT_EQ(prompt_rows(), 8U);
  load.scheduler.remove(quiet);
  EXPECT_EQ(prompt_rows(), 32U) << "nobody else waits for it";
}

// What its first prompt has cost keeps the second one of a tenant from being first in order.
TEST(SchedulerShare, nobody_steps_aside_for_a_request_that_would_not_be_admitted) {
  Load load(1024, shared_by_two(32, 4.0));
  for (TokenId i = 0; i < 40; ++i) load.add(counting(8, 100 * i), 300);
  for (int step = 0; step < 20; ++step) load.step();
  load.add({.tokens = counting(300, 9000), .tokens_max = 500, .tenant = 1});
  for (int step = 0; step < 10; ++step) load.step();
  load.add({.tokens = counting(100, 19'000), .tokens_max = 200, .tenant = 1});
  for (int step = 0; step < 4; ++step) EXPECT_GT(load.step().size(), 20U) << step;
}

TEST(SchedulerShare, a_prompt_gets_on_even_where_answers_need_all_the_time) {
  Load load(256, {.requests_max = 8,
                  .sequences_max = 4,
                  .prefill_chunk = 128,
                  .logit_rows_max = 4,
                  .step_target_us = 1});
  load.add(counting(100), 200);
  load.step();
  load.step();
  load.add(counting(200, 1000), 10);
  EXPECT_EQ(load.step()[1].tokens, 32U);
}

TEST(SchedulerShare, a_cached_prompt_goes_before_one_that_came_a_little_earlier) {
  Load load(64, 1, 64);
  const Slot first = load.add(counting(64), 1);
  load.step();
  load.step();
  load.scheduler.remove(first);
  const Slot running = load.add(counting(20, 5000), 200);
  load.step();
  const Slot cold = load.add(counting(60, 1000), 10);
  load.clock.advance(kRowUs);
  const Slot cached = load.add(counting(64), 10);
  load.step();
  load.step();
  load.scheduler.remove(running);
  load.step();
  EXPECT_TRUE(load.scheduler.is_running(cached));
  EXPECT_FALSE(load.scheduler.is_running(cold));
}

TEST(SchedulerShare, a_paused_sequence_holds_nothing_and_goes_on_where_it_was) {
  Load load(64, 2, 64);
  const Slot slot = load.add(counting(40), 100);
  for (int step = 0; step < 5; ++step) load.step();
  const size_t size = load.scheduler.tokens(slot).size();
  load.scheduler.pause(slot);
  EXPECT_TRUE(load.scheduler.idle());
  EXPECT_TRUE(load.step().empty());
  EXPECT_EQ(load.cache->stats().blocks().referenced(), 0U);
  load.scheduler.resume(slot);
  const auto rows = load.step();
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].first_position + rows[0].tokens, size) << "it computes its newest token";
  EXPECT_EQ(rows[0].tokens, 1U) << "all before it was still cached";
}

TEST(SchedulerShare, a_sequence_can_be_paused_before_it_began_and_removed_while_it_is) {
  Load load(64, 1, 64);
  load.add(counting(4), 100);
  load.step();
  const Slot waiting = load.add(counting(4, 100), 100);
  load.scheduler.pause(waiting);
  load.scheduler.pause(waiting);
  load.scheduler.check_invariants();
  load.scheduler.remove(waiting);
  load.scheduler.check_invariants();
  EXPECT_EQ(load.scheduler.waiting(), 0U);
}

}  // namespace
}  // namespace kvasir::sched
