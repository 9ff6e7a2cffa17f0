// Activations as the linear kernels read them. Integer weight formats take 8-bit activations:
// per group of 32 columns
//   scale = amax / 127,  q = round_to_even(x * (127 / amax))  (all zero when amax is 0)
// in f32 arithmetic, with one multiplication and one rounding per element.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kvasir::quant {

// Rows that somebody else owns. groups = columns / 32.
struct QuantizedRows {
  size_t rows = 0;
  size_t columns = 0;            // a multiple of 32
  int8_t* codes = nullptr;       // [rows, columns], each row 32-byte aligned
  float* scales = nullptr;       // [rows, groups]
  int32_t* code_sums = nullptr;  // [rows, groups] sum of the group's codes
  float* sums = nullptr;         // [rows, groups] scale * (float)code_sum

  size_t groups() const { return columns / 32; }
};

}  // namespace kvasir::quant
