// The 16 virtual lanes as one zmm register, and the int8 dot product by VNNI. Same names and
// meaning as in vec_avx2.h; the .inc files are written in terms of these.
#pragma once

#include "kernels/vec_x86.h"

namespace kvasir::kernels {
namespace {

using Vec = __m512;      // 16 f32
using IntVec = __m512i;  // 16 s32
using LaneMask = __mmask16;

// Register tiles, for 32 registers of one Vec: tokens per tile and Vecs of rows per token. With 5
// tokens an integer tile's sums of a half, its terms and its accumulators do not fit any more.
constexpr int kTileTokensQ8 = 4;
constexpr int kTileTokensF32 = 6;
constexpr int row_vecs_q8(int /*tokens*/) {
  return 2;
}
constexpr int row_vecs_f32(int /*tokens*/) {
  return 2;
}
constexpr int kAttentionRows = 8;
constexpr int kAttentionVecs = 2;

KVASIR_LANES Vec splat(float x) {
  return _mm512_set1_ps(x);
}
KVASIR_LANES Vec zero() {
  return _mm512_setzero_ps();
}
KVASIR_LANES Vec load(const float* p) {
  return _mm512_loadu_ps(p);
}
KVASIR_LANES void store(float* p, Vec x) {
  _mm512_storeu_ps(p, x);
}
// Requires: count <= 16.
KVASIR_LANES LaneMask first_lanes(size_t count) {
  return static_cast<LaneMask>((1u << count) - 1u);
}
KVASIR_LANES Vec load_masked(const float* p, LaneMask m) {
  return _mm512_maskz_loadu_ps(m, p);
}
KVASIR_LANES void store_masked(float* p, Vec x, LaneMask m) {
  _mm512_mask_storeu_ps(p, m, x);
}
KVASIR_LANES Vec select(LaneMask m, Vec a, Vec b) {
  return _mm512_mask_blend_ps(m, b, a);
}

KVASIR_LANES Vec add(Vec a, Vec b) {
  return _mm512_add_ps(a, b);
}
KVASIR_LANES Vec sub(Vec a, Vec b) {
  return _mm512_sub_ps(a, b);
}
KVASIR_LANES Vec mul(Vec a, Vec b) {
  return _mm512_mul_ps(a, b);
}
KVASIR_LANES Vec div(Vec a, Vec b) {
  return _mm512_div_ps(a, b);
}
KVASIR_LANES Vec fma(Vec a, Vec b, Vec c) {
  return _mm512_fmadd_ps(a, b, c);
}
KVASIR_LANES Vec greater(Vec a, Vec b) {
  return _mm512_max_ps(a, b);
}  // a > b ? a : b
KVASIR_LANES Vec lesser(Vec a, Vec b) {
  return _mm512_min_ps(a, b);
}  // a < b ? a : b
KVASIR_LANES Vec negate(Vec a) {
  return _mm512_xor_ps(a, _mm512_set1_ps(-0.0F));
}
KVASIR_LANES LaneMask is_less(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
// Bit i: a[i] == b[i].
KVASIR_LANES uint32_t equal_bits(Vec a, Vec b) {
  return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}

KVASIR_LANES __m256 upper_half(Vec x) {
  return _mm512_extractf32x8_ps(x, 1);
}
KVASIR_LANES float fold_sum(Vec x) {
  return fold_sum8(_mm256_add_ps(_mm512_castps512_ps256(x), upper_half(x)));
}
KVASIR_LANES float fold_max(Vec x) {
  return fold_max8(_mm256_max_ps(_mm512_castps512_ps256(x), upper_half(x)));
}

KVASIR_LANES IntVec zero_ints() {
  return _mm512_setzero_si512();
}
KVASIR_LANES IntVec add(IntVec a, IntVec b) {
  return _mm512_add_epi32(a, b);
}
KVASIR_LANES IntVec greater(IntVec a, IntVec b) {
  return _mm512_max_epi32(a, b);
}
KVASIR_LANES Vec to_float(IntVec x) {
  return _mm512_cvtepi32_ps(x);
}
KVASIR_LANES IntVec round_to_int(Vec x) {
  return _mm512_cvtps_epi32(x);
}
KVASIR_LANES IntVec magnitude_bits(Vec x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
KVASIR_LANES int32_t fold_sum(IntVec x) {
  return fold_sum8(_mm256_add_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)));
}
KVASIR_LANES int32_t fold_max(IntVec x) {
  return fold_max8(_mm256_max_epi32(_mm512_castsi512_si256(x), _mm512_extracti64x4_epi64(x, 1)));
}
// combine(lanes of x[i]) for every i, in lane i. Vectors are combined two by two while being put
// beside each other, so that 15 combinations do for all 16.
template <typename Combine>
KVASIR_LANES void fold_each(const IntVec (&x)[16], const Combine& combine, int32_t (&folded)[16]) {
  IntVec four[4];  // in each quarter what is left of four vectors
  KVASIR_UNROLL
  for (int i = 0; i < 4; ++i) {
    const IntVec* at = x + 4 * i;
    const IntVec ab =
        combine(_mm512_unpacklo_epi32(at[0], at[1]), _mm512_unpackhi_epi32(at[0], at[1]));
    const IntVec cd =
        combine(_mm512_unpacklo_epi32(at[2], at[3]), _mm512_unpackhi_epi32(at[2], at[3]));
    four[i] = combine(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
  }
  const auto quarters = [&](IntVec a, IntVec b) {
    return combine(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
  };
  _mm512_storeu_si512(folded, quarters(quarters(four[0], four[1]), quarters(four[2], four[3])));
}
// What fold_max and fold_sum give for each.
KVASIR_LANES void fold_max_each(const IntVec (&x)[16], int32_t (&folded)[16]) {
  fold_each(x, [](IntVec a, IntVec b) { return greater(a, b); }, folded);
}
KVASIR_LANES void fold_sum_each(const IntVec (&x)[16], int32_t (&folded)[16]) {
  fold_each(x, [](IntVec a, IntVec b) { return add(a, b); }, folded);
}
// Requires: every lane within -128 .. 127.
KVASIR_LANES void store_int8(int8_t* p, IntVec x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(x));
}

// 2^n where n is in the low bits of `shifted` (exp_constants.h).
KVASIR_LANES Vec power_of_two(Vec shifted) {
  const __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(0x3f800000)));
}

KVASIR_LANES Vec load_f16(const std::byte* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
KVASIR_LANES Vec load_bf16(const std::byte* p) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}
KVASIR_LANES Vec load_f32(const std::byte* p) {
  return _mm512_loadu_ps(p);
}
KVASIR_LANES Vec load_int8(const std::byte* p) {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
}

// The elements of 16 bf16 pairs.
KVASIR_LANES Vec load_even_bf16(const std::byte* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
}
KVASIR_LANES Vec load_odd_bf16(const std::byte* p) {
  const __m512i odd = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), odd));
}

// quant::round_to_bf16. A NaN is made quiet: its payload may lie in the lower half, and cutting
// that off would leave infinity.
KVASIR_LANES Vec round_to_bf16(Vec x) {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff));
  const __m512i upper = _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const __m512i rounded = _mm512_and_si512(up, upper);
  const __m512i sign = _mm512_and_si512(bits, _mm512_set1_epi32(INT32_MIN));
  const __mmask16 tiny = _mm512_testn_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  const __m512i flushed = _mm512_mask_blend_epi32(tiny, rounded, sign);
  const __m512i quiet = _mm512_or_si512(_mm512_and_si512(bits, upper), _mm512_set1_epi32(0x400000));
  return _mm512_castsi512_ps(_mm512_mask_blend_epi32(nan, flushed, quiet));
}

// The upper halves of 16 numbers that are bf16 already.
KVASIR_LANES void store_bf16(uint16_t* p, Vec x) {
  const __m512i halves = _mm512_srli_epi32(_mm512_castps_si512(x), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(halves));
}

// Int8 dots. Codes holds weight codes (u8) of 16 rows x 4 columns, DotSums what is summed up
// inside a group of 32 columns. kBits is the width of the codes, kZero their zero.
using Codes = __m512i;
using DotSums = __m512i;
using FourCodes = __m512i;  // activation codes of 4 columns, the same in all rows

KVASIR_LANES Codes load_codes(const std::byte* p) {
  return _mm512_loadu_si512(p);
}
KVASIR_LANES void store_codes(std::byte* p, Codes x) {
  _mm512_storeu_si512(p, x);
}
KVASIR_LANES Codes low_nibbles(Codes x) {
  return _mm512_and_si512(x, _mm512_set1_epi8(15));
}
KVASIR_LANES Codes high_nibbles(Codes x) {
  return _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
}
KVASIR_LANES FourCodes splat_four(const int8_t* codes) {
  return _mm512_set1_epi32(load_four_codes(codes));
}
KVASIR_LANES DotSums no_dots() {
  return _mm512_setzero_si512();
}

template <int kBits>
KVASIR_LANES DotSums add_dots(DotSums sums, Codes weights, FourCodes x) {
  return _mm512_dpbusd_epi32(sums, weights, x);
}
// sum (code - zero) * x, given the sum of x.
template <int kBits, int kZero>
KVASIR_LANES IntVec group_sums(DotSums sums, int32_t code_sum) {
  if constexpr (kZero == 0) return sums;
  return _mm512_sub_epi32(sums, _mm512_set1_epi32(kZero * code_sum));
}

}  // namespace
}  // namespace kvasir::kernels
