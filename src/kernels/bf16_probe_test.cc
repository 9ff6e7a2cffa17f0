#include "kernels/bf16_probe.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "quant/half.h"

namespace kvasir::kernels {
namespace {

using Multiply = float (*)(uint16_t a, uint16_t b, float sum);

float fused(uint16_t a, uint16_t b, float sum) {
  return std::fma(quant::bf16_to_f32(a), quant::bf16_to_f32(b), sum);
}

template <Multiply add_product, size_t kFirst>
void dots(const uint16_t* a, const uint16_t* b, float* sums) {
  for (size_t i = 0; i < 32; i += 2) {
    const size_t first = i + kFirst;
    const size_t second = i + 1 - kFirst;
    sums[i / 2] = add_product(a[second], b[second], add_product(a[first], b[first], sums[i / 2]));
  }
}

TEST(BF16Probe, accepts_the_rule) {
  EXPECT_TRUE((is_exact_dot(dots<fused, 1>)));
}

TEST(BF16Probe, rejects_the_even_element_first) {
  EXPECT_FALSE((is_exact_dot(dots<fused, 0>)));
}

float rounded_between(uint16_t a, uint16_t b, float sum) {
  volatile float product = quant::bf16_to_f32(a) * quant::bf16_to_f32(b);
  return product + sum;
}

// Products of bf16 are exact in f32, except where they leave its range.
TEST(BF16Probe, rejects_products_that_were_flushed_before_the_sum) {
  EXPECT_FALSE((is_exact_dot(dots<rounded_between, 1>)));
}

float truncated(uint16_t a, uint16_t b, float sum) {
  const double exact = static_cast<double>(quant::bf16_to_f32(a)) * quant::bf16_to_f32(b) + sum;
  const auto nearest = static_cast<float>(exact);
  return std::abs(nearest) > std::abs(exact) ? std::nextafter(nearest, 0.0F) : nearest;
}

TEST(BF16Probe, rejects_truncation) {
  EXPECT_FALSE((is_exact_dot(dots<truncated, 1>)));
}

// Denormal inputs have no implicit bit; the environment of the probe would flush them.
double exactly(uint16_t x) {
  const int exponent = (x >> 7) & 0xff;
  const int mantissa = (x & 0x7f) + (exponent == 0 ? 0 : 0x80);
  return std::ldexp(x >= 0x8000 ? -mantissa : mantissa, (exponent == 0 ? 1 : exponent) - 134);
}
float with_denormals(uint16_t a, uint16_t b, float sum) {
  return static_cast<float>(exactly(a) * exactly(b) + sum);
}

TEST(BF16Probe, rejects_denormals_taken_as_they_are) {
  EXPECT_FALSE((is_exact_dot(dots<with_denormals, 1>)));
}

// The sum of both products rounded once, as a wider accumulator would.
void dots_in_double(const uint16_t* a, const uint16_t* b, float* sums) {
  for (size_t i = 0; i < 32; i += 2) {
    const double products = double{quant::bf16_to_f32(a[i + 1])} * quant::bf16_to_f32(b[i + 1]) +
                            double{quant::bf16_to_f32(a[i])} * quant::bf16_to_f32(b[i]);
    sums[i / 2] = static_cast<float>(products + sums[i / 2]);
  }
}

TEST(BF16Probe, rejects_one_rounding_for_both_products) {
  EXPECT_FALSE(is_exact_dot(dots_in_double));
}

// The two chains of column `n` in a tile, and how they meet the sum.
template <Multiply add_product, float (*meet)(float sum, float even, float odd)>
void tile(const uint16_t* a, const uint16_t* b, float* sums) {
  for (size_t n = 0; n < 16; ++n) {
    float chains[2] = {0.0F, 0.0F};
    for (size_t k = 0; k < 32; ++k) {
      const uint16_t weight = b[k / 2 * 32 + 2 * n + k % 2];
      chains[k % 2] = add_product(a[k], weight, chains[k % 2]);
    }
    sums[n] = meet(sums[n], chains[0], chains[1]);
  }
}

float chains_first(float sum, float even, float odd) {
  return sum + (even + odd);
}
float one_by_one(float sum, float even, float odd) {
  return sum + even + odd;
}

TEST(TileProbe, accepts_the_rule) {
  EXPECT_TRUE((is_exact_tile(tile<fused, chains_first>)));
}

TEST(TileProbe, rejects_chains_that_meet_the_sum_one_by_one) {
  EXPECT_FALSE((is_exact_tile(tile<fused, one_by_one>)));
}

TEST(TileProbe, rejects_products_that_were_flushed_before_the_sum) {
  EXPECT_FALSE((is_exact_tile(tile<rounded_between, chains_first>)));
}

TEST(TileProbe, rejects_truncation_and_denormals_taken_as_they_are) {
  EXPECT_FALSE((is_exact_tile(tile<truncated, chains_first>)));
  EXPECT_FALSE((is_exact_tile(tile<with_denormals, chains_first>)));
}

// All products in one chain, as a dot product of pairs would.
void one_chain(const uint16_t* a, const uint16_t* b, float* sums) {
  for (size_t n = 0; n < 16; ++n) {
    for (size_t k = 0; k < 32; ++k) sums[n] = fused(a[k], b[k / 2 * 32 + 2 * n + k % 2], sums[n]);
  }
}

TEST(TileProbe, rejects_one_chain) {
  EXPECT_FALSE(is_exact_tile(one_chain));
}

}  // namespace
}  // namespace kvasir::kernels
