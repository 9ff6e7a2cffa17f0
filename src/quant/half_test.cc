#include "quant/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace kvasir::quant {
namespace {

// The definition of binary16 in double arithmetic.
double naive_f16(uint32_t half) {
  const double sign = (half & 0x8000U) != 0 ? -1.0 : 1.0;
  const auto exponent = static_cast<int>((half >> 10) & 31U);
  const auto mantissa = static_cast<double>(half & 0x3ffU);
  if (exponent == 31) {
    return mantissa == 0 ? sign * HUGE_VAL : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024.0 + mantissa, exponent - 25);
}

TEST(Half, every_f16_converts_exactly) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = f16_to_f32(static_cast<uint16_t>(half));
    const double expected = naive_f16(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(value)) << half;
      continue;
    }
    ASSERT_EQ(static_cast<double>(value), expected) << half;
    ASSERT_EQ(std::signbit(value), (half & 0x8000U) != 0) << half;
  }
}

TEST(Half, every_normal_bf16_survives_the_round_trip) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = bf16_to_f32(static_cast<uint16_t>(bits));
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(round_to_bf16(value))) << bits;
      continue;
    }
    const bool denormal = (bits & 0x7f80U) == 0;
    ASSERT_EQ(f32_to_bf16(value), denormal ? (bits & 0x8000U) : bits) << bits;
  }
}

// The nearer of the two bf16 neighbours, the even one in a tie, by distances in double.
uint16_t naive_bf16(float value) {
  const auto below = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  const auto above = static_cast<uint16_t>(below + 1);  // away from zero
  const double step_down = std::fabs(double{value} - double{bf16_to_f32(below)});
  const double step_up = std::fabs(double{bf16_to_f32(above)} - double{value});
  if (step_down != step_up) return step_down < step_up ? below : above;
  return (below & 1U) == 0 ? below : above;
}

TEST(Half, bf16_rounds_to_nearest_even) {
  constexpr uint32_t kSeed = 20261122;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  for (int i = 0; i < 100000; ++i) {
    auto bits = static_cast<uint32_t>(random());
    if (i % 4 == 0) bits = (bits & 0xffff0000U) | 0x8000U;  // exact ties
    const auto exponent = (bits >> 23) & 255U;
    if (exponent == 0 || exponent >= 254) continue;  // denormals flush; the top has no neighbour
    const auto value = std::bit_cast<float>(bits);
    ASSERT_EQ(f32_to_bf16(value), naive_bf16(value)) << std::hex << bits;
  }
}

TEST(Half, bf16_overflows_to_infinity_and_flushes_denormals) {
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(f32_to_bf16(-std::numeric_limits<float>::max()), 0xff80);
  EXPECT_EQ(f32_to_bf16(std::numeric_limits<float>::denorm_min()), 0x0000);
  EXPECT_EQ(f32_to_bf16(-std::numeric_limits<float>::denorm_min()), 0x8000);
}

}  // namespace
}  // namespace kvasir::quant
