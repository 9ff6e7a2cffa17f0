// The int8 dot product by VPDPBUSD. kBits is the width of the codes, kZero their zero; DotSums are
// s32.
#pragma once

#include "kernels/vec_avx2.h"

namespace kvasir::kernels {
namespace {

template <int kBits>
KVASIR_LANES DotSums add_dots(DotSums sums, Codes weights, FourCodes x) {
  return {_mm256_dpbusd_avx_epi32(sums.lo, weights.lo, x),
          _mm256_dpbusd_avx_epi32(sums.hi, weights.hi, x)};
}
// sum (code - zero) * x, given the sum of x.
template <int kBits, int kZero>
KVASIR_LANES IntVec group_sums(DotSums sums, int32_t code_sum) {
  if constexpr (kZero == 0) return {sums.lo, sums.hi};
  const __m256i zeros = _mm256_set1_epi32(kZero * code_sum);
  return {_mm256_sub_epi32(sums.lo, zeros), _mm256_sub_epi32(sums.hi, zeros)};
}

}  // namespace
}  // namespace kvasir::kernels
