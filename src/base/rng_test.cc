#include "base/rng.h"

#include <gtest/gtest.h>

namespace kvasir::base {
namespace {

using Bits = std::array<uint32_t, 4>;

// Published vectors of philox4x32, 10 rounds (Random123, kat_vectors). The counter words are
// counter low, counter high, choice low, choice high; the key words are those of the seed.
TEST(Rng, agrees_with_the_published_vectors) {
  EXPECT_EQ(random_bits({.seed = 0, .choice = 0}, 0),
            (Bits{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(random_bits({.seed = ~uint64_t{0}, .choice = ~uint64_t{0}}, ~uint64_t{0}),
            (Bits{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      random_bits({.seed = 0x299f31d0a4093822, .choice = 0x0370734413198a2e}, 0x85a308d3243f6a88),
      (Bits{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, unit_values_are_uniform_in_the_half_open_interval) {
  constexpr int kDraws = 100000;
  double sum = 0.0;
  int low_tenth = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double value = random_unit({.seed = 42, .choice = 0}, static_cast<uint64_t>(i));
    ASSERT_GE(value, 0.0);
    ASSERT_LT(value, 1.0);
    sum += value;
    low_tenth += value < 0.1 ? 1 : 0;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);
  EXPECT_NEAR(static_cast<double>(low_tenth) / kDraws, 0.1, 0.005);
}

TEST(Rng, seed_choice_and_counter_all_matter) {
  const Bits base = random_bits({.seed = 1, .choice = 1}, 1);
  EXPECT_EQ(random_bits({.seed = 1, .choice = 1}, 1), base);
  EXPECT_NE(random_bits({.seed = 2, .choice = 1}, 1), base);
  EXPECT_NE(random_bits({.seed = 1, .choice = 2}, 1), base);
  EXPECT_NE(random_bits({.seed = 1, .choice = 1}, 2), base);
}

}  // namespace
}  // namespace kvasir::base
