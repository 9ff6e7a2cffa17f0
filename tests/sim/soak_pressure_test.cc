// Tiny pools under many clients: somebody is always evicted or preempted.
#include <gtest/gtest.h>

#include "sim/soak.h"

namespace kvasir::sim {
namespace {

// Pools of 8 to 32 blocks, 64 clients.
TEST(Pressure, one_hundred_thousand_requests_in_tiny_pools_give_the_oracles_text) {
  const SoakOptions options{.seed = 40'001,
                            .tokens = UINT64_MAX,
                            .tokens_per_setup = 20'000,
                            .requests = 100'000,
                            .family = SoakFamily::kPressure};
  SCOPED_TRACE(testing::Message() << "seed " << options.seed);
  const SoakReport report = run_soak(options);
  EXPECT_FALSE(report.failure.has_value()) << *report.failure;
  EXPECT_GE(report.figures.requests, options.requests);
  EXPECT_GT(report.figures.preemptions, options.requests / 20);
  EXPECT_GT(report.figures.evictions, options.requests);
}

}  // namespace
}  // namespace kvasir::sim
