#include "base/fp_env.h"

#include <gtest/gtest.h>

#include <bit>
#include <cfenv>
#include <cstdint>
#include <limits>

namespace kvasir::base {
namespace {

// volatile: computed at run time, in the environment of the moment.
float halve(float value) {
  volatile float input = value;
  volatile float half = 0.5F;
  return input * half;
}

constexpr float kSmallestNormal = std::numeric_limits<float>::min();
constexpr float kDenormal = kSmallestNormal / 2;

TEST(FpEnv, denormal_results_and_inputs_are_zero_inside_only) {
  EXPECT_EQ(halve(kSmallestNormal), kDenormal);
  {
    const ScopedFpEnv fp_env;
    const float result = halve(kSmallestNormal);
    const float from_denormal = halve(kDenormal) + kSmallestNormal;
    EXPECT_EQ(std::bit_cast<uint32_t>(result), 0U);
    EXPECT_EQ(from_denormal, kSmallestNormal);
  }
  EXPECT_EQ(halve(kSmallestNormal), kDenormal);
}

// 1 plus a quarter of its unit in the last place: 1, unless rounding is upward.
float add_a_little_to_one() {
  volatile float one = 1.0F;
  volatile float little = 0x1p-25F;
  return one + little;
}

TEST(FpEnv, rounds_to_nearest_whatever_the_caller_had) {
  ASSERT_EQ(std::fesetround(FE_UPWARD), 0);
  const float before = add_a_little_to_one();
  float inside = 0.0F;
  {
    const ScopedFpEnv fp_env;
    inside = add_a_little_to_one();
  }
  const float after = add_a_little_to_one();
  std::fesetround(FE_TONEAREST);
  EXPECT_GT(before, 1.0F);
  EXPECT_EQ(inside, 1.0F);
  EXPECT_EQ(after, before);
}

TEST(FpEnv, scopes_nest) {
  const ScopedFpEnv outer;
  {
    const ScopedFpEnv inner;
  }
  EXPECT_EQ(std::bit_cast<uint32_t>(halve(kSmallestNormal)), 0U);
}

}  // namespace
}  // namespace kvasir::base
