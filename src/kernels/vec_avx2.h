// The 16 virtual lanes as two ymm registers. Same names and meaning as in vec_avx512.h; the .inc
// files are written in terms of these and of a dots_*.h.
#pragma once

#include "kernels/vec_x86.h"

namespace kvasir::kernels {
namespace {

struct Vec {  // 16 f32
  __m256 lo;
  __m256 hi;
};
struct IntVec {  // 16 s32
  __m256i lo;
  __m256i hi;
};
using LaneMask = IntVec;  // all bits of a lane, or none

// Register tiles, for 8 registers of one Vec: tokens per tile and Vecs of rows per token.
constexpr int kTileTokensQ8 = 3;
constexpr int kTileTokensF32 = 3;
constexpr int row_vecs_q8(int tokens) {
  return tokens == 1 ? 2 : 1;
}
constexpr int row_vecs_f32(int tokens) {
  return tokens <= 2 ? 2 : 1;
}
constexpr int kAttentionRows = 4;
constexpr int kAttentionVecs = 1;

KVASIR_LANES Vec splat(float x) {
  return {_mm256_set1_ps(x), _mm256_set1_ps(x)};
}
KVASIR_LANES Vec zero() {
  return {_mm256_setzero_ps(), _mm256_setzero_ps()};
}
KVASIR_LANES Vec load(const float* p) {
  return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
KVASIR_LANES void store(float* p, Vec x) {
  _mm256_storeu_ps(p, x.lo);
  _mm256_storeu_ps(p + 8, x.hi);
}
KVASIR_LANES LaneMask first_lanes(size_t count) {
  const __m256i n = _mm256_set1_epi32(static_cast<int32_t>(count));
  return {_mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
          _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
KVASIR_LANES Vec load_masked(const float* p, LaneMask m) {
  return {_mm256_maskload_ps(p, m.lo), _mm256_maskload_ps(p + 8, m.hi)};
}
KVASIR_LANES void store_masked(float* p, Vec x, LaneMask m) {
  _mm256_maskstore_ps(p, m.lo, x.lo);
  _mm256_maskstore_ps(p + 8, m.hi, x.hi);
}
KVASIR_LANES Vec select(LaneMask m, Vec a, Vec b) {
  return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(m.lo)),
          _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(m.hi))};
}

KVASIR_LANES Vec add(Vec a, Vec b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec sub(Vec a, Vec b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec mul(Vec a, Vec b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec div(Vec a, Vec b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
KVASIR_LANES Vec greater(Vec a, Vec b) {  // a > b ? a : b
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec lesser(Vec a, Vec b) {  // a < b ? a : b
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
KVASIR_LANES Vec negate(Vec a) {
  const __m256 sign = _mm256_set1_ps(-0.0F);
  return {_mm256_xor_ps(a.lo, sign), _mm256_xor_ps(a.hi, sign)};
}
KVASIR_LANES LaneMask is_less(Vec a, Vec b) {
  return {_mm256_castps_si256(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
          _mm256_castps_si256(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ))};
}
// Bit i: a[i] == b[i].
KVASIR_LANES uint32_t equal_bits(Vec a, Vec b) {
  const int lo = _mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ));
  const int hi = _mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ));
  return static_cast<uint32_t>(lo) | (static_cast<uint32_t>(hi) << 8);
}

KVASIR_LANES float fold_sum(Vec x) {
  return fold_sum8(_mm256_add_ps(x.lo, x.hi));
}
KVASIR_LANES float fold_max(Vec x) {
  return fold_max8(_mm256_max_ps(x.lo, x.hi));
}

KVASIR_LANES IntVec zero_ints() {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}
KVASIR_LANES IntVec add(IntVec a, IntVec b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
KVASIR_LANES IntVec greater(IntVec a, IntVec b) {
  return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
KVASIR_LANES Vec to_float(IntVec x) {
  return {_mm256_cvtepi32_ps(x.lo), _mm256_cvtepi32_ps(x.hi)};
}
KVASIR_LANES IntVec round_to_int(Vec x) {
  return {_mm256_cvtps_epi32(x.lo), _mm256_cvtps_epi32(x.hi)};
}
KVASIR_LANES IntVec magnitude_bits(Vec x) {
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  return {_mm256_and_si256(_mm256_castps_si256(x.lo), mask),
          _mm256_and_si256(_mm256_castps_si256(x.hi), mask)};
}
KVASIR_LANES int32_t fold_sum(IntVec x) {
  return fold_sum8(_mm256_add_epi32(x.lo, x.hi));
}
KVASIR_LANES int32_t fold_max(IntVec x) {
  return fold_max8(_mm256_max_epi32(x.lo, x.hi));
}
// What fold_max gives for each.
KVASIR_LANES void fold_max_each(const IntVec (&x)[16], int32_t (&folded)[16]) {
  for (size_t i = 0; i < 16; ++i) folded[i] = fold_max(x[i]);
}
// What fold_sum gives for each.
KVASIR_LANES void fold_sum_each(const IntVec (&x)[16], int32_t (&folded)[16]) {
  for (size_t i = 0; i < 16; ++i) folded[i] = fold_sum(x[i]);
}
// Requires: every lane within -128 .. 127.
KVASIR_LANES void store_int8(int8_t* p, IntVec x) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.lo, x.hi), 0xd8);
  const __m128i codes =
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), codes);
}

KVASIR_LANES __m256 power_of_two(__m256 shifted) {
  const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_set1_epi32(0x3f800000)));
}
// 2^n where n is in the low bits of `shifted` (exp_constants.h).
KVASIR_LANES Vec power_of_two(Vec shifted) {
  return {power_of_two(shifted.lo), power_of_two(shifted.hi)};
}

KVASIR_LANES __m256i load_256(const std::byte* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
KVASIR_LANES __m128i load_128(const std::byte* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
KVASIR_LANES Vec load_f16(const std::byte* p) {
  return {_mm256_cvtph_ps(load_128(p)), _mm256_cvtph_ps(load_128(p + 16))};
}
KVASIR_LANES __m256 bf16_to_f32(__m128i halves) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
KVASIR_LANES Vec load_bf16(const std::byte* p) {
  return {bf16_to_f32(load_128(p)), bf16_to_f32(load_128(p + 16))};
}
KVASIR_LANES Vec load_f32(const std::byte* p) {
  return {_mm256_castsi256_ps(load_256(p)), _mm256_castsi256_ps(load_256(p + 32))};
}
KVASIR_LANES Vec load_int8(const std::byte* p) {
  const __m128i codes = load_128(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(codes, codes)))};
}

// The elements of 16 bf16 pairs.
KVASIR_LANES Vec load_even_bf16(const std::byte* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(load_256(p), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(load_256(p + 32), 16))};
}
KVASIR_LANES Vec load_odd_bf16(const std::byte* p) {
  const __m256i odd = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
  return {_mm256_castsi256_ps(_mm256_and_si256(load_256(p), odd)),
          _mm256_castsi256_ps(_mm256_and_si256(load_256(p + 32), odd))};
}

KVASIR_LANES __m256 round_to_bf16(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(bits, odd), _mm256_set1_epi32(0x7fff));
  const __m256i upper = _mm256_set1_epi32(static_cast<int32_t>(0xffff0000u));
  const __m256i rounded = _mm256_and_si256(up, upper);
  const __m256i sign = _mm256_and_si256(bits, _mm256_set1_epi32(INT32_MIN));
  const __m256i exponent = _mm256_and_si256(bits, _mm256_set1_epi32(0x7f800000));
  const __m256i tiny = _mm256_cmpeq_epi32(exponent, _mm256_setzero_si256());
  const __m256i flushed = _mm256_blendv_epi8(rounded, sign, tiny);
  const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
  const __m256i quiet = _mm256_or_si256(_mm256_and_si256(bits, upper), _mm256_set1_epi32(0x400000));
  return _mm256_blendv_ps(_mm256_castsi256_ps(flushed), _mm256_castsi256_ps(quiet), nan);
}
// quant::round_to_bf16; a NaN is made quiet, see vec_avx512.h.
KVASIR_LANES Vec round_to_bf16(Vec x) {
  return {round_to_bf16(x.lo), round_to_bf16(x.hi)};
}

// Int8 dots. Codes holds weight codes (u8) of 16 rows x 4 columns, DotSums what is summed up
// inside a group of 32 columns, see dots_*.h.
struct Codes {
  __m256i lo;
  __m256i hi;
};
struct DotSums {
  __m256i lo;
  __m256i hi;
};
using FourCodes = __m256i;  // activation codes of 4 columns, the same in all rows

KVASIR_LANES Codes load_codes(const std::byte* p) {
  return {load_256(p), load_256(p + 32)};
}
KVASIR_LANES void store_codes(std::byte* p, Codes x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), x.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), x.hi);
}
KVASIR_LANES Codes low_nibbles(Codes x) {
  const __m256i mask = _mm256_set1_epi8(15);
  return {_mm256_and_si256(x.lo, mask), _mm256_and_si256(x.hi, mask)};
}
KVASIR_LANES Codes high_nibbles(Codes x) {
  return low_nibbles({_mm256_srli_epi16(x.lo, 4), _mm256_srli_epi16(x.hi, 4)});
}
KVASIR_LANES FourCodes splat_four(const int8_t* codes) {
  return _mm256_set1_epi32(load_four_codes(codes));
}
KVASIR_LANES DotSums no_dots() {
  return {_mm256_setzero_si256(), _mm256_setzero_si256()};
}

}  // namespace
}  // namespace kvasir::kernels
