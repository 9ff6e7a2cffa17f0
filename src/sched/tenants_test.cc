#include "sched/tenants.h"

#include <gtest/gtest.h>

namespace kvasir::sched {
namespace {

TEST(Tenants, without_weights_there_is_one) {
  Tenants tenants({});
  EXPECT_EQ(tenants.count(), 1U);
  EXPECT_EQ(tenants.share(0, 64), 64.0);
}

TEST(Tenants, shares_follow_the_weights_of_those_that_are_there) {
  const std::vector<double> weights = {1.0, 3.0, 4.0};
  Tenants tenants(weights);
  tenants.arrived(0);
  EXPECT_EQ(tenants.share(0, 64), 64.0);
  tenants.arrived(1);
  EXPECT_EQ(tenants.share(0, 64), 16.0);
  EXPECT_EQ(tenants.share(1, 64), 48.0);
  tenants.arrived(2);
  EXPECT_EQ(tenants.share(0, 64), 8.0);
  tenants.left(1);
  EXPECT_EQ(tenants.active(), 2U);
  EXPECT_EQ(tenants.share(2, 50), 40.0);
}

TEST(Tenants, what_was_had_counts_by_weight_once_the_order_is_refreshed) {
  const std::vector<double> weights = {1.0, 2.0};
  Tenants tenants(weights);
  tenants.arrived(0);
  tenants.arrived(1);
  tenants.serve(0, 100, 0);
  tenants.serve(1, 100, 0);
  EXPECT_EQ(tenants.had(0), tenants.had(1));
  tenants.refresh_order();
  EXPECT_EQ(tenants.had(0), 2.0 * tenants.had(1));
}

TEST(Tenants, a_generated_token_costs_more_than_one_of_a_prompt) {
  Tenants tenants({});
  tenants.serve(0, 1, 0);
  tenants.refresh_order();
  const double prompt = tenants.had(0);
  tenants.serve(0, 0, 1);
  tenants.refresh_order();
  EXPECT_GT(tenants.had(0) - prompt, prompt);
}

TEST(Tenants, whoever_was_away_saves_nothing_up) {
  const std::vector<double> weights = {1.0, 1.0};
  Tenants tenants(weights);
  tenants.arrived(0);
  tenants.serve(0, 1000, 0);
  tenants.arrived(1);
  tenants.refresh_order();
  EXPECT_NEAR(tenants.had(1), tenants.had(0), 1.0);
  EXPECT_LT(tenants.had(1), tenants.had(0)) << "its turn comes first";
  tenants.serve(1, 500, 0);
  tenants.left(1);
  tenants.arrived(1);
  tenants.refresh_order();
  EXPECT_NEAR(tenants.had(1), tenants.had(0) + 500, 1.0) << "nor is anything forgiven";
}

TEST(Tenants, what_was_had_while_the_others_were_away_is_not_owed_to_them) {
  const std::vector<double> weights = {1.0, 1.0};
  Tenants tenants(weights);
  tenants.arrived(0);
  tenants.serve(0, 1000, 0);
  tenants.left(0);
  tenants.arrived(1);  // nobody is there to be level with
  tenants.arrived(0);
  tenants.refresh_order();
  EXPECT_EQ(tenants.had(0), tenants.had(1));
}

}  // namespace
}  // namespace kvasir::sched
