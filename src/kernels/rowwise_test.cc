#include <algorithm>
#include <limits>

#include "kernels/exp_constants.h"
#include "kernels/testing.h"

namespace kvasir::kernels {
namespace {

using testing::fast_isas;
using testing::kUnit;
using testing::Random;
using testing::reference;
using testing::same_bits;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

class Rowwise : public ::testing::Test {
 protected:
  base::ScopedFpEnv fp_env_;
};

std::vector<size_t> odd_sizes() {
  std::vector<size_t> sizes;
  for (size_t n = 1; n <= 50; ++n) sizes.push_back(n);
  sizes.insert(sizes.end(), {63, 64, 65, 127, 255, 576, 577, 1001, 1536});
  return sizes;
}

// Ordinary numbers, and with `wild` some that are not.
std::vector<float> row(Random& random, size_t n, bool wild) {
  constexpr std::array<float, 12> kWild{0.0F,   -0.0F,     1e-40F,     -1e-40F, 1e38F,   -1e38F,
                                        88.31F, kInfinity, -kInfinity, kNan,    -87.31F, 1e-30F};
  std::vector<float> x = random.vector(n, -9.0F, 9.0F);
  for (float& value : x) {
    if (wild && random.below(3) == 0) value = kWild[random.below(kWild.size())];
  }
  return x;
}

// Calls body(table, x, y) for every fast ISA, size and kind of data.
template <typename Body>
void for_all_rows(uint32_t seed, Body body) {
  Random random(seed);
  for (const Isa isa : fast_isas()) {
    for (const size_t n : odd_sizes()) {
      for (const bool wild : {false, true}) {
        SCOPED_TRACE(std::string(isa_name(isa)) + " n " + std::to_string(n));
        body(*find_kernels(isa), row(random, n, wild), row(random, n, wild));
        if (::testing::Test::HasFailure()) return;
      }
    }
  }
}

TEST_F(Rowwise, exp_has_the_reference_bits) {
  for_all_rows(1, [](const KernelTable& table, std::vector<float> x, std::vector<float> y) {
    for (float& value : x) value *= 10.0F;
    std::vector<float> expected(x.size());
    reference().exp(x, expected);
    table.exp(x, y);
    EXPECT_TRUE(same_bits(y, expected));
  });
}

TEST_F(Rowwise, rms_norm_has_the_reference_bits_also_in_place) {
  for_all_rows(2, [](const KernelTable& table, std::vector<float> x, std::vector<float> weight) {
    std::vector<float> expected(x.size());
    std::vector<float> y(x.size());
    reference().rms_norm(x, weight, 1e-5F, expected);
    table.rms_norm(x, weight, 1e-5F, y);
    EXPECT_TRUE(same_bits(y, expected));
    table.rms_norm(x, weight, 1e-5F, x);
    EXPECT_TRUE(same_bits(x, expected));
  });
}

TEST_F(Rowwise, silu_mul_has_the_reference_bits_also_in_place) {
  for_all_rows(3, [](const KernelTable& table, std::vector<float> gate, std::vector<float> up) {
    for (float& value : gate) value *= 10.0F;
    std::vector<float> expected(gate.size());
    std::vector<float> out(gate.size());
    reference().silu_mul(gate, up, expected);
    table.silu_mul(gate, up, out);
    EXPECT_TRUE(same_bits(out, expected));
    table.silu_mul(gate, up, gate);
    EXPECT_TRUE(same_bits(gate, expected));
  });
}

TEST_F(Rowwise, add_has_the_reference_bits) {
  for_all_rows(4, [](const KernelTable& table, std::vector<float> x, std::vector<float> y) {
    std::vector<float> expected = x;
    reference().add(expected, y);
    table.add(x, y);
    EXPECT_TRUE(same_bits(x, expected));
  });
}

TEST_F(Rowwise, arg_max_and_softmax_stats_equal_the_reference) {
  for_all_rows(5, [](const KernelTable& table, std::vector<float> x, const std::vector<float>&) {
    EXPECT_EQ(table.arg_max(x), reference().arg_max(x));
    const SoftmaxStats expected = reference().softmax_stats(x);
    const SoftmaxStats stats = table.softmax_stats(x);
    EXPECT_TRUE(same_bits(std::array{stats.max, stats.sum_exp},
                          std::array{expected.max, expected.sum_exp}));
  });
}

TEST_F(Rowwise, rope_pairs_has_the_reference_bits_for_every_rotated_width) {
  Random random(6);
  for (const Isa isa : fast_isas()) {
    for (const size_t head_dim : {2u, 16u, 34u, 64u, 80u}) {
      for (size_t rotated = 0; rotated <= head_dim; rotated += 2) {
        const std::vector<float> cos = random.vector(rotated / 2, -1.0F, 1.0F);
        const std::vector<float> sin = random.vector(rotated / 2, -1.0F, 1.0F);
        std::vector<float> x = row(random, 3 * head_dim, false);
        std::vector<float> expected = x;
        reference().rope_pairs(expected, head_dim, cos, sin);
        find_kernels(isa)->rope_pairs(x, head_dim, cos, sin);
        ASSERT_TRUE(same_bits(x, expected)) << isa_name(isa) << ' ' << head_dim << ' ' << rotated;
      }
    }
  }
}

TEST_F(Rowwise, quantize_has_the_reference_bits_and_touches_only_its_rows) {
  Random random(7);
  for (const Isa isa : fast_isas()) {
    for (const size_t columns : {32u, 64u, 576u, 1536u}) {
      for (const bool wild : {false, true}) {
        const std::vector<float> x = row(random, 5 * columns, wild);
        testing::OwnedRows expected(5, columns);
        testing::OwnedRows out(5, columns);
        reference().quantize({x.data(), 5, columns}, 1, 4, expected.view);
        find_kernels(isa)->quantize({x.data(), 5, columns}, 1, 4, out.view);
        ASSERT_EQ(std::memcmp(out.view.codes, expected.view.codes, 5 * columns), 0);
        ASSERT_TRUE(same_bits(out.scales, expected.scales)) << isa_name(isa);
        ASSERT_EQ(out.code_sums, expected.code_sums);
        ASSERT_TRUE(same_bits(out.sums, expected.sums));
      }
    }
  }
}

// Every 251st float: two roundings of r, one per Horner step damped by r, one of the result, and
// the polynomial's 0.07 units stay below 2 units in the last place.
TEST_F(Rowwise, exp_is_within_two_units_in_the_last_place) {
  double worst = 0.0;
  for (const float limit : {kExpMin, kExpMax}) {
    for (uint32_t bits = std::bit_cast<uint32_t>(limit) & 0x80000000u;
         bits <= std::bit_cast<uint32_t>(limit); bits += 251) {
      const auto x = std::bit_cast<float>(bits);
      float y = 0.0F;
      reference().exp({&x, 1}, {&y, 1});
      const double exact = std::exp(static_cast<double>(x));
      const double ulp = std::exp2(std::floor(std::log2(exact)) - 23);
      worst = std::max(worst, std::abs(y - exact) / ulp);
    }
  }
  EXPECT_LE(worst, 2.0);
  RecordProperty("worst_ulp", std::to_string(worst));
}

TEST_F(Rowwise, exp_of_special_numbers) {
  const std::array x{0.0F, -0.0F, -kInfinity, -87.31F, kInfinity, 1000.0F, kNan};
  for (const Isa isa : supported_isas()) {
    std::array<float, 7> y{};
    const std::array<float, 1> limit{kExpMax};
    std::array<float, 1> highest{};
    find_kernels(isa)->exp(x, y);
    find_kernels(isa)->exp(limit, highest);
    EXPECT_TRUE(same_bits(y, std::array{1.0F, 1.0F, 0.0F, 0.0F, highest[0], highest[0], kNan}));
    EXPECT_LT(highest[0], kInfinity);
  }
}

// The sum of n squares has relative error (n / 16 + 4 + 1) u, halved by the root; then mean,
// epsilon, root, quotient and two products add one rounding each.
TEST_F(Rowwise, rms_norm_is_near_its_definition) {
  Random random(8);
  for (const size_t n : {1u, 17u, 576u, 4096u}) {
    const std::vector<float> x = row(random, n, false);
    const std::vector<float> weight = row(random, n, false);
    std::vector<float> y(n);
    reference().rms_norm(x, weight, 1e-5F, y);
    double squares = 0.0;
    for (const float v : x) squares += static_cast<double>(v) * v;
    const double r = 1.0 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
    for (size_t i = 0; i < n; ++i) {
      const double exact = x[i] * r * weight[i];
      ASSERT_NEAR(y[i], exact, std::abs(exact) * (static_cast<double>(n) / 32 + 9) * kUnit);
    }
  }
}

// exp is within 2 units in the last place = 4 u; sum, quotient and product round once each.
TEST_F(Rowwise, silu_mul_is_near_its_definition) {
  Random random(9);
  const std::vector<float> gate = random.vector(2000, -80.0F, 80.0F);
  const std::vector<float> up = row(random, 2000, false);
  std::vector<float> out(2000);
  reference().silu_mul(gate, up, out);
  for (size_t i = 0; i < out.size(); ++i) {
    const double exact = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i];
    ASSERT_NEAR(out[i], exact, std::abs(exact) * 8 * kUnit + 1e-37) << gate[i];
  }
}

// One rounded product and one fma: (|x0 c| + |x1 s|) 2 u.
TEST_F(Rowwise, rope_pairs_rotates) {
  const float angle = 0.75F;
  const std::array cos{std::cos(angle), 1.0F};
  const std::array sin{std::sin(angle), 0.0F};
  std::vector<float> x{3.0F, 4.0F, 5.0F, 6.0F, 7.0F, 8.0F};
  reference().rope_pairs(x, 6, cos, sin);
  EXPECT_NEAR(x[0], 3.0 * cos[0] - 4.0 * sin[0], 7 * 2 * kUnit);
  EXPECT_NEAR(x[1], 3.0 * sin[0] + 4.0 * cos[0], 7 * 2 * kUnit);
  EXPECT_EQ(std::vector(x.begin() + 2, x.end()), (std::vector{5.0F, 6.0F, 7.0F, 8.0F}));
}

TEST_F(Rowwise, quantize_is_within_half_a_step) {
  Random random(10);
  const std::vector<float> x = row(random, 4 * 64, false);
  testing::OwnedRows out(4, 64);
  reference().quantize({x.data(), 4, 64}, 0, 4, out.view);
  for (size_t i = 0; i < x.size(); ++i) {
    const double scale = out.scales[i / 16];
    // Two roundings of the scales before the rounding to an integer of at most 127.
    ASSERT_NEAR(scale * out.view.codes[i], x[i], scale * (0.5 + 127 * 3 * kUnit));
  }
}

TEST_F(Rowwise, quantize_of_zeros_and_of_non_finite_numbers) {
  for (const Isa isa : supported_isas()) {
    std::vector<float> x(96, 0.0F);
    x[40] = kNan;
    x[70] = kInfinity;
    testing::OwnedRows out(1, 96);
    find_kernels(isa)->quantize({x.data(), 1, 96}, 0, 1, out.view);
    EXPECT_EQ(out.scales[0], 0.0F);
    EXPECT_EQ(out.code_sums[0], 0);
    EXPECT_TRUE(std::isnan(out.scales[2]));  // so the NaN is seen in the logits
    EXPECT_EQ(out.scales[4], kInfinity);
  }
}

TEST_F(Rowwise, arg_max_takes_the_first_of_equals_and_never_a_nan) {
  for (const Isa isa : supported_isas()) {
    const KernelTable& table = *find_kernels(isa);
    for (size_t n = 1; n < 70; ++n) {
      std::vector<float> x(n, kNan);
      EXPECT_EQ(table.arg_max(x), 0u) << "all NaN";
      x.back() = -kInfinity;
      EXPECT_EQ(table.arg_max(x), n - 1);
      for (size_t i = 0; i < n; ++i) {
        std::fill(x.begin(), x.end(), 1.0F);
        x[i] = 2.0F;
        x.back() = 2.0F;
        EXPECT_EQ(table.arg_max(x), i);
      }
    }
  }
}

// n / 16 + 4 additions of exps that are within 2 units in the last place (4 u).
TEST_F(Rowwise, softmax_stats_are_near_their_definition) {
  Random random(11);
  const std::vector<float> x = row(random, 5000, false);
  const SoftmaxStats stats = reference().softmax_stats(x);
  const float max = *std::max_element(x.begin(), x.end());
  double sum = 0.0;
  for (const float v : x) sum += std::exp(static_cast<double>(v - max));
  EXPECT_EQ(stats.max, max);
  EXPECT_NEAR(stats.sum_exp, sum, sum * (5000.0 / 16 + 8) * kUnit);
}

}  // namespace
}  // namespace kvasir::kernels
