#include "sched/step_costs.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace kvasir::sched {
namespace {

TEST(StepCosts, know_no_bound_before_the_first_prompt) {
  StepCosts costs;
  costs.note(4, 0, 5000);
  EXPECT_EQ(costs.prompt_rows_within(4, 10), UINT32_MAX);
}

TEST(StepCosts, give_prompts_what_decode_rows_leave_of_the_time) {
  StepCosts costs;
  costs.note(0, 100, 10'000);
  costs.note(4, 0, 5'000);
  EXPECT_EQ(costs.prompt_rows_within(0, 20'000), 200U);
  EXPECT_EQ(costs.prompt_rows_within(4, 20'000), 150U);
  EXPECT_EQ(costs.prompt_rows_within(4, 5'000), 0U);
}

TEST(StepCosts, take_a_smaller_step_where_none_of_the_size_was_measured) {
  StepCosts costs;
  costs.note(0, 100, 10'000);
  costs.note(4, 0, 5'000);
  EXPECT_EQ(costs.prompt_rows_within(64, 20'000), costs.prompt_rows_within(4, 20'000));
}

TEST(StepCosts, take_a_part_of_a_larger_step_where_no_smaller_one_was_measured) {
  StepCosts costs;
  costs.note(0, 100, 10'000);
  costs.note(64, 0, 8'000);
  EXPECT_EQ(costs.prompt_rows_within(16, 20'000), 180U) << "2 ms for 16";
}

TEST(StepCosts, do_not_count_decode_rows_as_cost_of_the_prompt_beside_them) {
  StepCosts costs;
  costs.note(8, 0, 4'000);
  costs.note(8, 100, 14'000);
  EXPECT_DOUBLE_EQ(costs.prompt_row_us(), 100.0);
}

TEST(StepCosts, learn_decode_rows_from_steps_with_a_little_prompt) {
  StepCosts costs;
  costs.note(0, 100, 10'000);
  costs.note(20, 10, 6'000);
  EXPECT_EQ(costs.prompt_rows_within(20, 7'000), 20U) << "20 rows alone take 5 ms";
}

TEST(StepCosts, follow_a_machine_that_becomes_slower) {
  StepCosts costs;
  costs.note(0, 100, 1'000);
  for (int i = 0; i < 100; ++i) costs.note(0, 100, 3'000);
  EXPECT_NEAR(costs.prompt_row_us(), 30.0, 0.1);
}

}  // namespace
}  // namespace kvasir::sched
