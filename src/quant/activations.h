// Activations as the linear kernels read them. Integer weight formats take 8-bit activations: per
// half of a weight group, 16 columns,
//   scale = amax / 127,  q = round_to_even(x * (127 / amax))  (all zero when amax is 0)
// in f32 arithmetic, with one multiplication and one rounding per element. Halves, because one
// scale for 32 columns lets an outlier cost its neighbours too much: docs/adr/0004.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir::quant {

constexpr size_t kHalfColumns = 16;

// Rows that somebody else owns.
struct QuantizedRows {
  size_t rows = 0;
  size_t columns = 0;            // a multiple of 32
  int8_t* codes = nullptr;       // [rows, columns], each row 32-byte aligned
  float* scales = nullptr;       // [rows, halves]
  int32_t* code_sums = nullptr;  // [rows, halves] sum of the half's codes
  float* sums = nullptr;         // [rows, groups] sum of the group's values, from both halves:
                                 // fma(scale1, (float)code_sum1, scale0 * (float)code_sum0)

  size_t groups() const { return columns / 32; }
  size_t halves() const { return columns / kHalfColumns; }
};

}  // namespace kvasir::quant
