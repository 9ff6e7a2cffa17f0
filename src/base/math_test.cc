#include "base/math.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

#include "base/fp_env.h"

namespace kvasir::base {
namespace {

constexpr uint32_t kSeed = 31415;
constexpr int kSamples = 200000;

// |value - expected| in units of the last place of `expected`.
double ulps(double value, double expected) {
  const double size = std::fmax(std::fabs(expected), std::numeric_limits<double>::min());
  const double ulp = std::nextafter(size, HUGE_VAL) - size;
  return std::fabs(value - expected) / ulp;
}

TEST(Math, exp_is_within_a_few_ulp) {
  const ScopedFpEnv fp_env;
  std::mt19937_64 random(kSeed);
  // Below -600 the unit in the last place is itself denormal, hence zero in this environment.
  std::uniform_real_distribution<double> any(-600.0, 700.0);
  for (int i = 0; i < kSamples; ++i) {
    const double x = any(random);
    ASSERT_LE(ulps(exp_exact(x), std::exp(x)), 3.0) << "seed " << kSeed << " x " << x;
  }
  EXPECT_EQ(exp_exact(0.0), 1.0);
  EXPECT_EQ(exp_exact(-1000.0), 0.0);
  EXPECT_EQ(exp_exact(1000.0), HUGE_VAL);
}

TEST(Math, log_is_within_a_few_ulp) {
  const ScopedFpEnv fp_env;
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> exponents(-600.0, 700.0);
  std::uniform_real_distribution<double> near_one(0.5, 2.0);
  for (int i = 0; i < kSamples; ++i) {
    const double x = i % 2 == 0 ? std::exp(exponents(random)) : near_one(random);
    ASSERT_LE(ulps(log_exact(x), std::log(x)), 4.0) << "seed " << kSeed << " x " << x;
  }
  EXPECT_EQ(log_exact(1.0), 0.0);
}

TEST(Math, pow_is_accurate_to_the_size_of_its_exponent) {
  const ScopedFpEnv fp_env;
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> bases(1.0, 1e6);
  std::uniform_real_distribution<double> exponents(-2.0, 2.0);
  for (int i = 0; i < kSamples; ++i) {
    const double x = bases(random);
    const double y = exponents(random);
    // An error of one ulp in y * log x is |y log x| ulp of the power.
    const double tolerance = 4.0 + 4.0 * std::fabs(y * std::log(x));
    ASSERT_LE(ulps(pow_exact(x, y), std::pow(x, y)), tolerance) << "seed " << kSeed << " x " << x;
  }
}

TEST(Math, sin_and_cos_are_within_a_few_ulp_of_one) {
  const ScopedFpEnv fp_env;
  std::mt19937_64 random(kSeed);
  const double ulp_of_one = std::numeric_limits<double>::epsilon();
  for (const double limit : {1.0, 100.0, 8192.0, 1048576.0}) {
    std::uniform_real_distribution<double> any(-limit, limit);
    for (int i = 0; i < kSamples / 4; ++i) {
      const double x = any(random);
      const SinCos value = sincos_exact(x);
      ASSERT_NEAR(value.sin, std::sin(x), 2 * ulp_of_one) << "seed " << kSeed << " x " << x;
      ASSERT_NEAR(value.cos, std::cos(x), 2 * ulp_of_one) << "seed " << kSeed << " x " << x;
    }
  }
  EXPECT_EQ(sincos_exact(0.0).sin, 0.0);
  EXPECT_EQ(sincos_exact(0.0).cos, 1.0);
}

TEST(Math, sin_and_cos_hold_up_to_the_largest_position) {
  const ScopedFpEnv fp_env;
  std::mt19937_64 random(kSeed);
  std::uniform_real_distribution<double> any(-0x1p26, 0x1p26);
  for (int i = 0; i < kSamples; ++i) {
    const double x = any(random);
    const SinCos value = sincos_exact(x);
    ASSERT_NEAR(value.sin, std::sin(x), 1e-14) << "seed " << kSeed << " x " << x;
    ASSERT_NEAR(value.cos, std::cos(x), 1e-14) << "seed " << kSeed << " x " << x;
  }
}

}  // namespace
}  // namespace kvasir::base
