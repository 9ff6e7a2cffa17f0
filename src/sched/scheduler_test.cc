#include "sched/scheduler.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace kvasir::sched {
namespace {

std::unique_ptr<kv::Cache> make_cache(uint32_t blocks, uint32_t sequences_max) {
  const kv::GroupShape group{.layers = 1, .kv_heads = 1, .head_dim = 16};
  const kv::BlockLayout layout(group, 16);
  return *kv::Cache::create({.group = group,
                             .block_tokens = 16,
                             .budget_bytes = blocks * layout.block_bytes(),
                             .sequences_max = sequences_max,
                             .sequence_tokens_max = 512});
}

SchedulerLimits limits_of(uint32_t sequences_max, uint32_t prefill_chunk) {
  return {.requests_max = 64,
          .sequences_max = sequences_max,
          .prefill_chunk = prefill_chunk,
          .logit_rows_max = sequences_max};
}

// Computes the whole plan and appends a token wherever one was sampled.
void run_step(Scheduler& scheduler, std::span<const PlannedRows> plan) {
  const std::vector<PlannedRows> rows(plan.begin(), plan.end());
  for (const PlannedRows& row : rows) {
    scheduler.complete(row);
    if (row.samples) scheduler.append_token(row.slot);
  }
}

TEST(Scheduler, a_prompt_is_cut_in_chunks_and_samples_once_at_its_end) {
  const auto cache = make_cache(64, 4);
  Scheduler scheduler(limits_of(4, 10), *cache);
  const Slot slot = scheduler.add({.prompt_tokens = 25, .tokens_max = 30});
  std::vector<uint32_t> chunks;
  for (int step = 0; step < 3; ++step) {
    const auto plan = scheduler.plan();
    ASSERT_EQ(plan.size(), 1U);
    EXPECT_EQ(plan[0].slot, slot);
    EXPECT_EQ(plan[0].samples, step == 2);
    chunks.push_back(plan[0].tokens);
    run_step(scheduler, plan);
  }
  EXPECT_EQ(chunks, (std::vector<uint32_t>{10, 10, 5}));
  EXPECT_EQ(scheduler.plan()[0].tokens, 1U);
  EXPECT_EQ(scheduler.plan()[0].first_position, 25U);
}

TEST(Scheduler, decodes_run_in_every_step_beside_a_long_prompt) {
  const auto cache = make_cache(64, 4);
  Scheduler scheduler(limits_of(4, 8), *cache);
  const Slot first = scheduler.add({.prompt_tokens = 1, .tokens_max = 100});
  run_step(scheduler, scheduler.plan());
  const Slot second = scheduler.add({.prompt_tokens = 100, .tokens_max = 200});
  for (int step = 0; step < 5; ++step) {
    const auto plan = scheduler.plan();
    ASSERT_EQ(plan.size(), 2U);
    EXPECT_EQ(plan[0].slot, first);
    EXPECT_EQ(plan[0].tokens, 1U);
    EXPECT_EQ(plan[1].slot, second);
    EXPECT_EQ(plan[1].tokens, 8U);
    run_step(scheduler, plan);
  }
}

TEST(Scheduler, nobody_overtakes_a_request_that_waits_for_blocks) {
  const auto cache = make_cache(4, 4);
  Scheduler scheduler(limits_of(4, 64), *cache);
  const Slot big = scheduler.add({.prompt_tokens = 33, .tokens_max = 48});
  EXPECT_EQ(scheduler.plan().size(), 1U);
  const Slot bigger = scheduler.add({.prompt_tokens = 60, .tokens_max = 64});
  const Slot small = scheduler.add({.prompt_tokens = 1, .tokens_max = 2});
  EXPECT_EQ(scheduler.plan().size(), 1U);
  EXPECT_EQ(scheduler.waiting(), 2U);
  scheduler.remove(big);
  EXPECT_EQ(scheduler.plan()[0].slot, bigger);
  EXPECT_EQ(scheduler.waiting(), 1U);
  scheduler.remove(bigger);
  EXPECT_EQ(scheduler.plan()[0].slot, small);
}

TEST(Scheduler, the_queue_is_full_at_its_limit_and_open_again_after_a_removal) {
  const auto cache = make_cache(4, 1);
  Scheduler scheduler(
      {.requests_max = 2, .sequences_max = 1, .prefill_chunk = 4, .logit_rows_max = 1}, *cache);
  scheduler.add({.prompt_tokens = 1, .tokens_max = 2});
  const Slot second = scheduler.add({.prompt_tokens = 1, .tokens_max = 2});
  EXPECT_TRUE(scheduler.full());
  scheduler.remove(second);
  EXPECT_FALSE(scheduler.full());
}

TEST(Scheduler, a_lease_of_an_earlier_turn_is_continued_where_it_ends) {
  const auto cache = make_cache(4, 2);
  Scheduler scheduler(limits_of(2, 64), *cache);
  const Slot first = scheduler.add({.prompt_tokens = 20, .tokens_max = 64});
  run_step(scheduler, scheduler.plan());
  EXPECT_EQ(scheduler.tokens_computed(first), 20U);
  std::optional<kv::Lease> lease = scheduler.remove(first);
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 2U);
  scheduler.add({.prompt_tokens = 30, .tokens_max = 64, .tokens_cached = 20}, std::move(lease));
  const auto plan = scheduler.plan();
  ASSERT_EQ(plan.size(), 1U);
  EXPECT_EQ(plan[0].first_position, 20U);
  EXPECT_EQ(plan[0].tokens, 10U);
  scheduler.check_invariants();
}

TEST(Scheduler, scored_prompts_never_ask_for_more_logit_rows_than_there_are) {
  const auto cache = make_cache(64, 4);
  Scheduler scheduler(limits_of(4, 64), *cache);
  for (int i = 0; i < 4; ++i) {
    scheduler.add({.prompt_tokens = 9, .tokens_max = 12, .score_prompt = i % 2 == 0});
  }
  uint32_t scored = 0;
  for (int step = 0; step < 30; ++step) {
    uint32_t logit_rows = 0;
    const auto plan = scheduler.plan();
    for (const PlannedRows& rows : plan) {
      if (rows.scores) scored += rows.tokens;
      logit_rows += rows.scores ? rows.tokens : rows.samples ? 1 : 0;
    }
    EXPECT_LE(logit_rows, 4U);
    for (const PlannedRows& rows : std::vector<PlannedRows>(plan.begin(), plan.end())) {
      scheduler.complete(rows);
      if (rows.first_position + rows.tokens >= 12) {
        scheduler.remove(rows.slot);
      } else if (rows.samples) {
        scheduler.append_token(rows.slot);
      }
    }
  }
  EXPECT_EQ(scored, 18U);
  EXPECT_TRUE(scheduler.idle());
}

// Random arrivals, chunk sizes and cancels: every request ends, in bounded steps, and every
// position is computed exactly once and in order.
void run_random_load(uint32_t seed) {
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 engine(seed);
  const auto random = [&](uint32_t n) { return static_cast<uint32_t>(engine() % n); };
  const uint32_t sequences_max = 1 + random(6);
  const auto cache = make_cache(8 + random(40), sequences_max);
  const uint32_t tokens_limit = std::min(512U, cache->stats().pool.blocks_capacity * 16);
  Scheduler scheduler(limits_of(sequences_max, 1 + random(50)), *cache);
  struct Twin {
    uint32_t tokens, tokens_max, computed;
  };
  std::map<uint32_t, Twin> twins;
  uint32_t left = 40;
  for (int step = 0; left > 0 || !scheduler.idle(); ++step) {
    ASSERT_LT(step, 20000) << "a request starves";
    if (left > 0 && random(3) == 0) {
      const uint32_t tokens_max = 1 + random(tokens_limit);
      const uint32_t prompt = 1 + random(tokens_max);
      const Slot slot = scheduler.add({.prompt_tokens = prompt, .tokens_max = tokens_max});
      twins[index_of(slot)] = {prompt, tokens_max, 0};
      --left;
    }
    const auto plan = scheduler.plan();
    for (const PlannedRows& rows : std::vector<PlannedRows>(plan.begin(), plan.end())) {
      Twin& twin = twins.at(index_of(rows.slot));
      ASSERT_EQ(rows.first_position, twin.computed);
      twin.computed += rows.tokens;
      ASSERT_EQ(rows.samples, twin.computed == twin.tokens);
      scheduler.complete(rows);
      if (rows.samples && twin.tokens < twin.tokens_max && random(50) != 0) {
        scheduler.append_token(rows.slot);
        ++twin.tokens;
      } else if (rows.samples) {
        scheduler.remove(rows.slot);
        twins.erase(index_of(rows.slot));
      }
    }
    if (!twins.empty() && random(40) == 0) {  // cancel, in whatever state
      const uint32_t slot = twins.begin()->first;
      scheduler.remove(Slot{slot});
      twins.erase(slot);
    }
    scheduler.check_invariants();
    cache->check_invariants();
  }
  EXPECT_EQ(cache->stats().pool.blocks_referenced, 0U);
}

TEST(Scheduler, random_load_always_drains_and_computes_each_position_once) {
  for (uint32_t seed = 1; seed <= 30; ++seed) run_random_load(seed);
}

}  // namespace
}  // namespace kvasir::sched
