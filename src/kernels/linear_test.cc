#include <algorithm>
#include <cstring>

#include "kernels/testing.h"

namespace kvasir::kernels {
namespace {

using quant::PackedFormat;
using testing::fast_isas;
using testing::kUnit;
using testing::OwnedMatrix;
using testing::OwnedRows;
using testing::Random;
using testing::reference;
using testing::same_bits;

constexpr std::array kIntegerFormats{PackedFormat::kQ8, PackedFormat::kQ8Min, PackedFormat::kQ4,
                                     PackedFormat::kQ4Min};
constexpr std::array kFloatFormats{PackedFormat::kF32, PackedFormat::kF16, PackedFormat::kBF16};
constexpr std::array kAllFormats{PackedFormat::kQ8,    PackedFormat::kQ8Min, PackedFormat::kQ4,
                                 PackedFormat::kQ4Min, PackedFormat::kF32,   PackedFormat::kF16,
                                 PackedFormat::kBF16};
constexpr float kUntouched = 12345.0F;

class Linear : public ::testing::Test {
 protected:
  base::ScopedFpEnv fp_env_;
};

// Activations of some tokens in both forms.
struct Activations {
  Activations(Random& random, size_t tokens, size_t columns)
      : values(random.vector(tokens * columns, -2.0F, 2.0F)), quantized(tokens, columns) {
    // Extreme codes too: a group of one magnitude has only codes of +-127.
    for (size_t i = 0; i < std::min<size_t>(32, values.size()); ++i) {
      values[i] = random.below(2) == 0 ? 1.5F : -1.5F;
    }
    reference().quantize({values.data(), tokens, columns}, 0, tokens, quantized.view);
  }
  size_t tokens() const { return quantized.view.rows; }

  std::vector<float> values;
  OwnedRows quantized;
};

// The rows [first, first + count) of quantised activations.
quant::QuantizedRows rows_from(const quant::QuantizedRows& x, size_t first, size_t count) {
  return {.rows = count,
          .columns = x.columns,
          .codes = x.codes + first * x.columns,
          .scales = x.scales + first * x.halves(),
          .code_sums = x.code_sums + first * x.halves(),
          .sums = x.sums + first * x.groups()};
}

struct Rows {
  size_t first;
  size_t count;
};

// Tokens [first, first + count) times the panels. The result has 3 columns too many, which must
// stay as they are.
std::vector<float> multiply(const KernelTable& table, const quant::PackedMatrix& w,
                            const Activations& x, Rows rows, PanelRange panels) {
  const auto [first, count] = rows;
  const size_t stride = w.rows + 3;
  std::vector<float> y(count * stride, kUntouched);
  const base::Span2D<float> out(y.data(), count, w.rows, stride);
  if (quant::is_integer(w.format)) {
    table.linear_q8(w, rows_from(x.quantized.view, first, count), panels, out);
  } else {
    table.linear_f32(w, {x.values.data() + first * w.columns, count, w.columns}, panels, out);
  }
  return y;
}

std::vector<float> multiply(const KernelTable& table, const quant::PackedMatrix& w,
                            const Activations& x) {
  return multiply(table, w, x, {0, x.tokens()}, {0, w.panels()});
}

TEST_F(Linear, every_format_and_size_has_the_reference_bits) {
  Random random(21);
  for (const PackedFormat format : kAllFormats) {
    for (const auto& [rows, columns] :
         {std::pair<size_t, size_t>{1, 32}, {16, 64}, {31, 96}, {33, 544}, {70, 160}, {96, 1056}}) {
      const OwnedMatrix w = testing::random_matrix(random, format, rows, columns);
      for (const size_t tokens : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 11u, 13u, 32u}) {
        if (columns > 500 && tokens > 13) continue;
        const Activations x(random, tokens, columns);
        const std::vector<float> expected = multiply(reference(), w.matrix, x);
        for (const Isa isa : fast_isas()) {
          ASSERT_TRUE(same_bits(multiply(*find_kernels(isa), w.matrix, x), expected))
              << isa_name(isa) << ' ' << quant::format_name(format) << ' ' << rows << 'x' << columns
              << " tokens " << tokens;
        }
      }
    }
  }
}

TEST_F(Linear, float_formats_take_any_number_of_columns) {
  Random random(22);
  for (const PackedFormat format : kFloatFormats) {
    for (const size_t columns : {1u, 7u, 127u, 129u, 300u}) {
      const OwnedMatrix w = testing::random_matrix(random, format, 40, columns);
      const Activations x(random, 9, columns / 32 * 32 + 32);
      Activations cut(random, 9, 32);
      cut.values.assign(x.values.begin(), x.values.begin() + static_cast<ptrdiff_t>(9 * columns));
      const std::vector<float> expected = multiply(reference(), w.matrix, cut);
      for (const Isa isa : fast_isas()) {
        ASSERT_TRUE(same_bits(multiply(*find_kernels(isa), w.matrix, cut), expected))
            << isa_name(isa) << ' ' << quant::format_name(format) << ' ' << columns;
      }
    }
  }
}

TEST_F(Linear, one_token_alone_gives_the_bits_it_gives_among_others) {
  Random random(23);
  for (const PackedFormat format : kAllFormats) {
    const OwnedMatrix w = testing::random_matrix(random, format, 45, 608);
    const Activations x(random, 20, 608);
    for (const Isa isa : supported_isas()) {
      const KernelTable& table = *find_kernels(isa);
      const std::vector<float> together = multiply(table, w.matrix, x);
      for (size_t token = 0; token < 20; ++token) {
        const std::vector<float> alone =
            multiply(table, w.matrix, x, {token, 1}, {0, w.matrix.panels()});
        const std::span row(together.data() + token * alone.size(), alone.size());
        ASSERT_TRUE(same_bits(alone, row)) << isa_name(isa) << ' ' << quant::format_name(format);
      }
    }
  }
}

TEST_F(Linear, panels_may_be_split_anywhere_and_others_stay_untouched) {
  Random random(24);
  for (const PackedFormat format : kAllFormats) {
    const OwnedMatrix w = testing::random_matrix(random, format, 150, 64);  // 5 panels
    const Activations x(random, 8, 64);
    for (const Isa isa : supported_isas()) {
      const KernelTable& table = *find_kernels(isa);
      const std::vector<float> whole = multiply(table, w.matrix, x);
      for (size_t begin = 0; begin <= 5; ++begin) {
        for (size_t end = begin; end <= 5; ++end) {
          const std::vector<float> part = multiply(table, w.matrix, x, {0, 8}, {begin, end});
          std::vector<float> expected = whole;
          for (size_t i = 0; i < expected.size(); ++i) {
            const size_t panel = i % 153 / 32;
            if (i % 153 >= 150 || panel < begin || panel >= end) expected[i] = kUntouched;
          }
          ASSERT_TRUE(same_bits(part, expected)) << isa_name(isa) << ' ' << begin << ' ' << end;
        }
      }
    }
  }
}

TEST_F(Linear, extreme_codes_do_not_overflow) {
  for (const PackedFormat format : kIntegerFormats) {
    for (const int fill : {0x00, 0xff, 0x80, 0x7f}) {
      Random random(25);
      OwnedMatrix w = testing::random_matrix(random, format, 32, 64);
      const size_t step = quant::step_bytes(format);
      const size_t codes = step - (quant::has_minimum(format) ? 128 : 64);
      for (size_t g = 0; g < 2; ++g) std::memset(w.memory.data() + g * step, fill, codes);
      for (const int8_t code : {int8_t{-127}, int8_t{127}}) {
        Activations x(random, 2, 64);
        std::fill_n(x.quantized.view.codes, 128, code);
        std::fill(x.quantized.code_sums.begin(), x.quantized.code_sums.end(), 16 * code);
        const std::vector<float> expected = multiply(reference(), w.matrix, x);
        for (const Isa isa : fast_isas()) {
          ASSERT_TRUE(same_bits(multiply(*find_kernels(isa), w.matrix, x), expected))
              << isa_name(isa) << ' ' << quant::format_name(format) << ' ' << fill;
        }
      }
    }
  }
}

// A weight is code * scale + minimum, and unpack_row rounds each of the two operations once: with
// minima below 1/8 its parts have magnitudes of at most |w| + 1/8 and 1/8. With S the sum of these
// times |x|, the kernel adds one rounding of the accumulator per term (10 groups, up to two terms
// each), two of the halves' sum, two of x's sum; unpack_row adds two.
TEST_F(Linear, integer_formats_are_near_the_exact_product) {
  Random random(26);
  for (const PackedFormat format : kIntegerFormats) {
    const OwnedMatrix w = testing::random_matrix(random, format, 40, 320);
    const Activations x(random, 3, 320);
    const std::vector<float> y = multiply(reference(), w.matrix, x);
    std::vector<float> weights(320);
    for (size_t feature = 0; feature < 40; ++feature) {
      quant::unpack_row(w.matrix, feature, weights);
      for (size_t token = 0; token < 3; ++token) {
        double exact = 0.0;
        double magnitude = 0.0;
        for (size_t k = 0; k < 320; ++k) {
          const double x_value = static_cast<double>(x.quantized.scales[(token * 320 + k) / 16]) *
                                 x.quantized.view.codes[token * 320 + k];
          const double term = weights[k] * x_value;
          const double minimum_max = quant::has_minimum(format) ? 0.125 : 0.0;
          exact += term;
          magnitude += std::abs(term) + 2 * minimum_max * std::abs(x_value);
        }
        ASSERT_NEAR(y[token * 43 + feature], exact, (2 * 10 + 6) * kUnit * magnitude)
            << quant::format_name(format);
      }
    }
  }
}

// One rounding per term, relative to at most the sum of magnitudes.
TEST_F(Linear, float_formats_are_near_the_exact_product) {
  Random random(27);
  for (const PackedFormat format : kFloatFormats) {
    const OwnedMatrix w = testing::random_matrix(random, format, 40, 320);
    const Activations x(random, 3, 320);
    const std::vector<float> y = multiply(reference(), w.matrix, x);
    std::vector<float> weights(320);
    for (size_t feature = 0; feature < 40; ++feature) {
      quant::unpack_row(w.matrix, feature, weights);
      for (size_t token = 0; token < 3; ++token) {
        double exact = 0.0;
        double magnitude = 0.0;
        for (size_t k = 0; k < 320; ++k) {
          const double term = static_cast<double>(weights[k]) * x.values[token * 320 + k];
          exact += term;
          magnitude += std::abs(term);
        }
        ASSERT_NEAR(y[token * 43 + feature], exact, 320 * kUnit * magnitude)
            << quant::format_name(format);
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
