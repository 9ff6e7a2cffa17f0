// The int8 dot product by 16-bit products. kBits is the width of the codes, kZero their zero.
//
// A product pair of VPMADDUBSW must fit in 16 bits. 4-bit codes: 8 pairs per group of at most
// 2 * 15 * 127 do, added up; DotSums are s16. 8-bit codes do not: there the u8 operand is
// |code - 128| and its sign moves to the activation (never -128), so a pair is at most
// 2 * 128 * 127; DotSums are s32.
#pragma once

#include "kernels/vec_avx2.h"

namespace kvasir::kernels {
namespace {

template <int kBits>
KVASIR_LANES __m256i add_dots(__m256i sums, __m256i weights, FourCodes x) {
  if constexpr (kBits == 4) return _mm256_add_epi16(sums, _mm256_maddubs_epi16(weights, x));
  const __m256i centred = _mm256_xor_si256(weights, _mm256_set1_epi8(INT8_MIN));
  const __m256i pairs =
      _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(x, centred));
  return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
template <int kBits>
KVASIR_LANES DotSums add_dots(DotSums sums, Codes weights, FourCodes x) {
  return {add_dots<kBits>(sums.lo, weights.lo, x), add_dots<kBits>(sums.hi, weights.hi, x)};
}
// sum (code - zero) * x, given the sum of x. 8-bit codes were centred before the dot.
template <int kBits, int kZero>
KVASIR_LANES IntVec group_sums(DotSums sums, int32_t code_sum) {
  if constexpr (kBits == 8) return {sums.lo, sums.hi};
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i zeros = _mm256_set1_epi32(kZero * code_sum);
  return {_mm256_sub_epi32(_mm256_madd_epi16(sums.lo, ones), zeros),
          _mm256_sub_epi32(_mm256_madd_epi16(sums.hi, ones), zeros)};
}

}  // namespace
}  // namespace kvasir::kernels
