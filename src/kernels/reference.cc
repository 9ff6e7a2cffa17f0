// The definition of every kernel, in the plainest words: one element at a time, 16 virtual lanes
// spelled out. Nothing here is shared with the fast versions except the constants of exp.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/check.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"
#include "quant/half.h"

namespace kvasir::kernels {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
using Lanes = std::array<float, 16>;
using HeadRow = std::array<float, kMaxHeadDim>;

// b unless a is greater: when one of them is NaN the answer is b.
float greater(float a, float b) {
  return a > b ? a : b;
}

float fold_sum(Lanes lanes) {
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) lanes[j] += lanes[j + half];
  }
  return lanes[0];
}

float fold_max(Lanes lanes) {
  for (size_t half = 8; half > 0; half /= 2) {
    for (size_t j = 0; j < half; ++j) lanes[j] = greater(lanes[j], lanes[j + half]);
  }
  return lanes[0];
}

float exp_one(float x) {
  if (x < kExpMin) return 0.0F;
  const float clamped = kExpMax < x ? kExpMax : x;
  const float shifted = std::fma(clamped, kExpLog2E, kExpRound);
  const float n = shifted - kExpRound;
  float r = std::fma(n, -kExpLn2High, clamped);
  r = std::fma(n, -kExpLn2Low, r);
  float p = kExpC6;
  for (const float c : {kExpC5, kExpC4, kExpC3, kExpC2, 1.0F, 1.0F}) p = std::fma(p, r, c);
  // The low bits of `shifted` are n; adding the bias makes them the exponent of 2^n.
  const uint32_t power = (std::bit_cast<uint32_t>(shifted) << 23) + 0x3f800000u;
  return p * std::bit_cast<float>(power);
}

void exp_all(std::span<const float> x, std::span<float> out) {
  CHECK(x.size() == out.size());
  for (size_t i = 0; i < x.size(); ++i) out[i] = exp_one(x[i]);
}

void rms_norm(std::span<const float> x, std::span<const float> weight, float epsilon,
              std::span<float> y) {
  CHECK(weight.size() == x.size() && y.size() == x.size());
  Lanes squares{};
  for (size_t i = 0; i < x.size(); ++i) {
    squares[i % 16] = std::fma(x[i], x[i], squares[i % 16]);
  }
  const float mean = fold_sum(squares) / static_cast<float>(x.size());
  const float r = 1.0F / std::sqrt(mean + epsilon);
  for (size_t i = 0; i < x.size(); ++i) y[i] = x[i] * r * weight[i];
}

void rope_pairs(std::span<float> x, size_t head_dim, std::span<const float> cos,
                std::span<const float> sin) {
  CHECK(head_dim > 0 && x.size() % head_dim == 0);
  CHECK(cos.size() == sin.size() && 2 * cos.size() <= head_dim);
  for (size_t head = 0; head < x.size(); head += head_dim) {
    for (size_t i = 0; i < cos.size(); ++i) {
      const float x0 = x[head + 2 * i];
      const float x1 = x[head + 2 * i + 1];
      x[head + 2 * i] = std::fma(x0, cos[i], -(x1 * sin[i]));
      x[head + 2 * i + 1] = std::fma(x0, sin[i], x1 * cos[i]);
    }
  }
}

void silu_mul(std::span<const float> gate, std::span<const float> up, std::span<float> out) {
  CHECK(gate.size() == up.size() && gate.size() == out.size());
  for (size_t i = 0; i < gate.size(); ++i) {
    out[i] = gate[i] / (1.0F + exp_one(-gate[i])) * up[i];
  }
}

void add(std::span<float> x, std::span<const float> y) {
  CHECK(x.size() == y.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

// Half a group, or a query of attention.
void quantize_part(std::span<const float> x, int8_t* codes, float& scale, int32_t& code_sum) {
  // Magnitudes compare like their bits; a NaN is above infinity, so it spoils the scale.
  uint32_t bits_max = 0;
  for (const float value : x) {
    bits_max = std::max(bits_max, std::bit_cast<uint32_t>(value) & 0x7fffffffu);
  }
  const auto amax = std::bit_cast<float>(bits_max);
  scale = amax / 127.0F;
  const float inverse = amax == 0.0F ? 0.0F : 127.0F / amax;
  code_sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const float value = greater(x[i] * inverse, -127.0F);  // NaN gives -127
    const float clamped = value < 127.0F ? value : 127.0F;
    codes[i] = static_cast<int8_t>(std::nearbyint(clamped));
    code_sum += codes[i];
  }
}

// scale0 * a + scale1 * b, rounded as everywhere.
float both_halves(const float* scales, int32_t a, int32_t b) {
  return std::fma(scales[1], static_cast<float>(b), scales[0] * static_cast<float>(a));
}

void quantize(base::Span2D<const float> x, size_t first, size_t last,
              const quant::QuantizedRows& out) {
  CHECK(first <= last && last <= x.rows && last <= out.rows);
  CHECK(x.columns == out.columns && x.columns % 32 == 0);
  for (size_t row = first; row < last; ++row) {
    for (size_t h = 0; h < out.halves(); ++h) {
      const size_t at = row * out.halves() + h;
      quantize_part({x.data + row * x.stride + 16 * h, 16}, out.codes + row * out.columns + 16 * h,
                    out.scales[at], out.code_sums[at]);
    }
    for (size_t g = 0; g < out.groups(); ++g) {
      const size_t at = row * out.halves() + 2 * g;
      out.sums[row * out.groups() + g] =
          both_halves(out.scales + at, out.code_sums[at], out.code_sums[at + 1]);
    }
  }
}

int32_t code_at(quant::PackedFormat format, const std::byte* group, size_t row, size_t column) {
  if (format == quant::PackedFormat::kQ8 || format == quant::PackedFormat::kQ8Min) {
    return std::to_integer<int32_t>(group[column / 4 * 128 + 4 * row + column % 4]);
  }
  const size_t low_column = column % 16;
  const std::byte pair = group[low_column / 4 * 128 + 4 * row + low_column % 4];
  return std::to_integer<int32_t>(column < 16 ? pair & std::byte{15} : pair >> 4);
}

float half_at(const std::byte* bytes, size_t index) {
  uint16_t half = 0;
  std::memcpy(&half, bytes + 2 * index, 2);
  return quant::f16_to_f32(half);
}

// One output feature of one token.
float dot_q8(const quant::PackedMatrix& w, size_t feature, const quant::QuantizedRows& x,
             size_t token) {
  const size_t row = feature % quant::kPanelRows;
  const size_t minima_bytes = quant::has_minimum(w.format) ? 64 : 0;
  const size_t scales_offset = quant::step_bytes(w.format) - minima_bytes - 64;
  float acc = 0.0F;
  for (size_t g = 0; g < x.groups(); ++g) {
    const std::byte* group = w.panel(feature / quant::kPanelRows) + g * quant::step_bytes(w.format);
    int32_t isums[2] = {0, 0};
    for (size_t k = 0; k < 32; ++k) {
      const int32_t code = code_at(w.format, group, row, k) - quant::code_zero(w.format);
      isums[k / 16] += code * x.codes[token * x.columns + 32 * g + k];
    }
    const float* scales = x.scales + token * x.halves() + 2 * g;
    acc =
        std::fma(half_at(group + scales_offset, row), both_halves(scales, isums[0], isums[1]), acc);
    if (quant::has_minimum(w.format)) {
      acc = std::fma(half_at(group + scales_offset + 64, row), x.sums[token * x.groups() + g], acc);
    }
  }
  return acc;
}

void linear_q8(const quant::PackedMatrix& w, const quant::QuantizedRows& x, PanelRange panels,
               base::Span2D<float> y) {
  CHECK(quant::is_integer(w.format) && w.columns == x.columns);
  CHECK(y.rows == x.rows && y.columns == w.rows && panels.end <= w.panels());
  const size_t end = std::min(w.rows, panels.end * quant::kPanelRows);
  for (size_t token = 0; token < x.rows; ++token) {
    for (size_t feature = panels.begin * quant::kPanelRows; feature < end; ++feature) {
      y.data[token * y.stride + feature] = dot_q8(w, feature, x, token);
    }
  }
}

// What a tile adds to a sum for some dimensions, or keys.
float tile_dot(std::span<const float> a, std::span<const float> b) {
  float chains[2] = {0.0F, 0.0F};
  for (size_t i = 0; i < a.size(); ++i) chains[i % 2] = std::fma(a[i], b[i], chains[i % 2]);
  return chains[0] + chains[1];
}

float weight_at(quant::PackedFormat format, const std::byte* line, size_t row) {
  if (format == quant::PackedFormat::kF16) return half_at(line, row);
  if (format == quant::PackedFormat::kBF16) {
    uint16_t bits = 0;
    std::memcpy(&bits, line + 2 * row, 2);
    return quant::bf16_to_f32(bits);
  }
  float value = 0.0F;
  std::memcpy(&value, line + 4 * row, 4);
  return value;
}

void linear_f32(const quant::PackedMatrix& w, base::Span2D<const float> x, PanelRange panels,
                base::Span2D<float> y) {
  CHECK(!quant::is_integer(w.format) && w.columns == x.columns);
  CHECK(y.rows == x.rows && y.columns == w.rows && panels.end <= w.panels());
  const size_t end = std::min(w.rows, panels.end * quant::kPanelRows);
  for (size_t token = 0; token < x.rows; ++token) {
    for (size_t feature = panels.begin * quant::kPanelRows; feature < end; ++feature) {
      const std::byte* panel = w.panel(feature / quant::kPanelRows);
      float acc = 0.0F;
      for (size_t k = 0; k < w.columns; ++k) {
        const std::byte* line = panel + k * quant::step_bytes(w.format);
        acc = std::fma(weight_at(w.format, line, feature % quant::kPanelRows),
                       x.data[token * x.stride + k], acc);
      }
      y.data[token * y.stride + feature] = acc;
    }
  }
}

// The largest number, NaNs passed over; -infinity if there is none.
float max_of(std::span<const float> x) {
  Lanes highest;
  highest.fill(-kInfinity);
  for (size_t i = 0; i < x.size(); ++i) highest[i % 16] = greater(x[i], highest[i % 16]);
  return fold_max(highest);
}

size_t arg_max(std::span<const float> logits) {
  CHECK(!logits.empty());
  const float max = max_of(logits);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (logits[i] == max) return i;
  }
  return 0;  // nothing but NaN
}

SoftmaxStats softmax_stats(std::span<const float> logits) {
  CHECK(!logits.empty());
  // Adding zero turns -0 and denormals into +0, whichever lane they come from.
  const float max = max_of(logits) + 0.0F;
  Lanes sums{};
  for (size_t i = 0; i < logits.size(); ++i) sums[i % 16] += exp_one(logits[i] - max);
  return {.max = max, .sum_exp = fold_sum(sums)};
}

}  // namespace
}  // namespace kvasir::kernels

#include "kernels/reference_attention.inc"

#include "kernels/table.inc"

namespace kvasir::kernels {

const KernelTable& reference_kernels() {
  static constexpr KernelTable kTable = table_for(Isa::kReference);
  return kTable;
}

}  // namespace kvasir::kernels
