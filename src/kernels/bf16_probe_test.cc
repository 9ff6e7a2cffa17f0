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

}  // namespace
}  // namespace kvasir::kernels
