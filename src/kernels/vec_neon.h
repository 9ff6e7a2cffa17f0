// The 16 virtual lanes as four registers of 128 bits, and the int8 dot product by SDOT. Same names
// and meaning as in vec_avx512.h; the .inc files are written in terms of these.
//
// greater() and lesser() take the second operand when one is not a number, as on x86; FMAX and FMIN
// would not.
#pragma once

#include <arm_neon.h>

#include "kernels/vec_common.h"

namespace kvasir::kernels {
namespace {

struct Vec {  // 16 f32
  float32x4_t q[4];
};
struct IntVec {  // 16 s32
  int32x4_t q[4];
};
struct LaneMask {  // all bits of a lane, or none
  uint32x4_t q[4];
};

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

// op(0) .. op(3), one for each quarter.
template <typename Result, typename Op>
KVASIR_LANES Result quarters(Op op) {
  return {{op(0), op(1), op(2), op(3)}};
}

KVASIR_LANES Vec splat(float x) {
  const float32x4_t q = vdupq_n_f32(x);
  return {{q, q, q, q}};
}
KVASIR_LANES Vec zero() {
  return splat(0.0F);
}
KVASIR_LANES Vec load(const float* p) {
  return quarters<Vec>([&](int i) { return vld1q_f32(p + 4 * i); });
}
KVASIR_LANES void store(float* p, Vec x) {
  for (size_t i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, x.q[i]);
}
KVASIR_LANES LaneMask first_lanes(size_t count) {
  const uint32x4_t n = vdupq_n_u32(static_cast<uint32_t>(count));
  const uint32_t first[4] = {0, 1, 2, 3};
  const uint32x4_t lanes = vld1q_u32(first);
  return quarters<LaneMask>([&](int i) {
    return vcgtq_u32(n, vaddq_u32(lanes, vdupq_n_u32(static_cast<uint32_t>(4 * i))));
  });
}
// Lane by lane: memory beside the chosen lanes may be nobody's.
KVASIR_LANES Vec load_masked(const float* p, LaneMask m) {
  uint32_t chosen[16];
  float lanes[16] = {};
  for (size_t i = 0; i < 4; ++i) vst1q_u32(chosen + 4 * i, m.q[i]);
  for (size_t i = 0; i < 16; ++i) {
    if (chosen[i] != 0) lanes[i] = p[i];
  }
  return load(lanes);
}
KVASIR_LANES void store_masked(float* p, Vec x, LaneMask m) {
  uint32_t chosen[16];
  float lanes[16];
  for (size_t i = 0; i < 4; ++i) vst1q_u32(chosen + 4 * i, m.q[i]);
  store(lanes, x);
  for (size_t i = 0; i < 16; ++i) {
    if (chosen[i] != 0) p[i] = lanes[i];
  }
}
KVASIR_LANES Vec select(LaneMask m, Vec a, Vec b) {
  return quarters<Vec>([&](int i) { return vbslq_f32(m.q[i], a.q[i], b.q[i]); });
}

KVASIR_LANES Vec add(Vec a, Vec b) {
  return quarters<Vec>([&](int i) { return vaddq_f32(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec sub(Vec a, Vec b) {
  return quarters<Vec>([&](int i) { return vsubq_f32(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec mul(Vec a, Vec b) {
  return quarters<Vec>([&](int i) { return vmulq_f32(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec div(Vec a, Vec b) {
  return quarters<Vec>([&](int i) { return vdivq_f32(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec fma(Vec a, Vec b, Vec c) {
  return quarters<Vec>([&](int i) { return vfmaq_f32(c.q[i], a.q[i], b.q[i]); });
}
KVASIR_LANES float32x4_t greater(float32x4_t a, float32x4_t b) {
  return vbslq_f32(vcgtq_f32(a, b), a, b);
}
KVASIR_LANES Vec greater(Vec a, Vec b) {  // a > b ? a : b
  return quarters<Vec>([&](int i) { return greater(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec lesser(Vec a, Vec b) {  // a < b ? a : b
  return select(quarters<LaneMask>([&](int i) { return vcltq_f32(a.q[i], b.q[i]); }), a, b);
}
KVASIR_LANES Vec negate(Vec a) {
  return quarters<Vec>([&](int i) { return vnegq_f32(a.q[i]); });
}
KVASIR_LANES LaneMask is_less(Vec a, Vec b) {
  return quarters<LaneMask>([&](int i) { return vcltq_f32(a.q[i], b.q[i]); });
}
// Bit i: a[i] == b[i].
KVASIR_LANES uint32_t equal_bits(Vec a, Vec b) {
  const uint32_t first[4] = {1, 2, 4, 8};
  const uint32x4_t bits = vld1q_u32(first);
  uint32_t equal = 0;
  for (int i = 0; i < 4; ++i) {
    equal |= vaddvq_u32(vandq_u32(vceqq_f32(a.q[i], b.q[i]), bits)) << (4 * i);
  }
  return equal;
}

// Fold 8, 4, 2, 1.
KVASIR_LANES float fold_sum(Vec x) {
  const float32x4_t four = vaddq_f32(vaddq_f32(x.q[0], x.q[2]), vaddq_f32(x.q[1], x.q[3]));
  const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
  return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}
KVASIR_LANES float fold_max(Vec x) {
  const float32x4_t four = greater(greater(x.q[0], x.q[2]), greater(x.q[1], x.q[3]));
  const float32x4_t two = greater(four, vextq_f32(four, four, 2));
  const float a = vgetq_lane_f32(two, 0);
  const float b = vgetq_lane_f32(two, 1);
  return a > b ? a : b;
}

KVASIR_LANES IntVec zero_ints() {
  const int32x4_t q = vdupq_n_s32(0);
  return {{q, q, q, q}};
}
KVASIR_LANES IntVec add(IntVec a, IntVec b) {
  return quarters<IntVec>([&](int i) { return vaddq_s32(a.q[i], b.q[i]); });
}
KVASIR_LANES IntVec greater(IntVec a, IntVec b) {
  return quarters<IntVec>([&](int i) { return vmaxq_s32(a.q[i], b.q[i]); });
}
KVASIR_LANES Vec to_float(IntVec x) {
  return quarters<Vec>([&](int i) { return vcvtq_f32_s32(x.q[i]); });
}
KVASIR_LANES IntVec round_to_int(Vec x) {
  return quarters<IntVec>([&](int i) { return vcvtnq_s32_f32(x.q[i]); });
}
KVASIR_LANES IntVec magnitude_bits(Vec x) {
  const int32x4_t mask = vdupq_n_s32(0x7fffffff);
  return quarters<IntVec>([&](int i) { return vandq_s32(vreinterpretq_s32_f32(x.q[i]), mask); });
}
KVASIR_LANES int32_t fold_sum(IntVec x) {
  return vaddvq_s32(vaddq_s32(vaddq_s32(x.q[0], x.q[1]), vaddq_s32(x.q[2], x.q[3])));
}
KVASIR_LANES int32_t fold_max(IntVec x) {
  return vmaxvq_s32(vmaxq_s32(vmaxq_s32(x.q[0], x.q[1]), vmaxq_s32(x.q[2], x.q[3])));
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
  const int16x8_t low = vcombine_s16(vmovn_s32(x.q[0]), vmovn_s32(x.q[1]));
  const int16x8_t high = vcombine_s16(vmovn_s32(x.q[2]), vmovn_s32(x.q[3]));
  vst1q_s8(p, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
}

KVASIR_LANES float32x4_t power_of_two(float32x4_t shifted) {
  const int32x4_t exponent = vshlq_n_s32(vreinterpretq_s32_f32(shifted), 23);
  return vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f800000)));
}
// 2^n where n is in the low bits of `shifted` (exp_constants.h).
KVASIR_LANES Vec power_of_two(Vec shifted) {
  return quarters<Vec>([&](int i) { return power_of_two(shifted.q[i]); });
}

KVASIR_LANES uint32x4_t load_words(const std::byte* p) {
  return vreinterpretq_u32_u8(vld1q_u8(reinterpret_cast<const uint8_t*>(p)));
}
KVASIR_LANES uint16x4_t load_halves(const std::byte* p) {
  return vreinterpret_u16_u8(vld1_u8(reinterpret_cast<const uint8_t*>(p)));
}
KVASIR_LANES float32x4_t f16_to_f32(uint16x4_t halves) {
  return vcvt_f32_f16(vreinterpret_f16_u16(halves));
}
KVASIR_LANES Vec load_f16(const std::byte* p) {
  return quarters<Vec>([&](int i) { return f16_to_f32(load_halves(p + 8 * i)); });
}
KVASIR_LANES float32x4_t bf16_to_f32(uint16x4_t halves) {
  return vreinterpretq_f32_u32(vshll_n_u16(halves, 16));
}
KVASIR_LANES Vec load_bf16(const std::byte* p) {
  return quarters<Vec>([&](int i) { return bf16_to_f32(load_halves(p + 8 * i)); });
}
KVASIR_LANES Vec load_f32(const std::byte* p) {
  return quarters<Vec>([&](int i) { return vreinterpretq_f32_u32(load_words(p + 16 * i)); });
}
KVASIR_LANES Vec load_int8(const std::byte* p) {
  const int8x16_t codes = vld1q_s8(reinterpret_cast<const int8_t*>(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(codes));
  const int16x8_t high = vmovl_s8(vget_high_s8(codes));
  return to_float({{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)),
                    vmovl_s16(vget_low_s16(high)), vmovl_s16(vget_high_s16(high))}});
}

// The elements of 16 bf16 pairs.
KVASIR_LANES Vec load_even_bf16(const std::byte* p) {
  return quarters<Vec>(
      [&](int i) { return vreinterpretq_f32_u32(vshlq_n_u32(load_words(p + 16 * i), 16)); });
}
KVASIR_LANES Vec load_odd_bf16(const std::byte* p) {
  const uint32x4_t odd = vdupq_n_u32(0xffff0000u);
  return quarters<Vec>(
      [&](int i) { return vreinterpretq_f32_u32(vandq_u32(load_words(p + 16 * i), odd)); });
}

KVASIR_LANES float32x4_t round_to_bf16(float32x4_t x) {
  const uint32x4_t bits = vreinterpretq_u32_f32(x);
  const uint32x4_t odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
  const uint32x4_t up = vaddq_u32(vaddq_u32(bits, odd), vdupq_n_u32(0x7fff));
  const uint32x4_t upper = vdupq_n_u32(0xffff0000u);
  const uint32x4_t sign = vandq_u32(bits, vdupq_n_u32(0x80000000u));
  const uint32x4_t normal = vtstq_u32(bits, vdupq_n_u32(0x7f800000u));
  const uint32x4_t flushed = vbslq_u32(normal, vandq_u32(up, upper), sign);
  const uint32x4_t quiet = vorrq_u32(vandq_u32(bits, upper), vdupq_n_u32(0x400000));
  return vreinterpretq_f32_u32(vbslq_u32(vceqq_f32(x, x), flushed, quiet));
}
// quant::round_to_bf16; a NaN is made quiet, see vec_avx512.h.
KVASIR_LANES Vec round_to_bf16(Vec x) {
  return quarters<Vec>([&](int i) { return round_to_bf16(x.q[i]); });
}

// Int8 dots. Codes holds weight codes (u8) of 16 rows x 4 columns, DotSums what is summed up
// inside a group of 32 columns. kBits is the width of the codes, kZero their zero. SDOT wants both
// operands signed: codes of 4 bits are, those of 8 bits lose their zero of 128 before.
struct Codes {
  uint8x16_t q[4];
};
using DotSums = IntVec;
using FourCodes = int8x16_t;  // activation codes of 4 columns, the same in all rows

KVASIR_LANES Codes load_codes(const std::byte* p) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(p);
  return quarters<Codes>([&](int i) { return vld1q_u8(bytes + 16 * i); });
}
KVASIR_LANES void store_codes(std::byte* p, Codes x) {
  for (size_t i = 0; i < 4; ++i) vst1q_u8(reinterpret_cast<uint8_t*>(p) + 16 * i, x.q[i]);
}
KVASIR_LANES Codes low_nibbles(Codes x) {
  for (uint8x16_t& codes : x.q) codes = vandq_u8(codes, vdupq_n_u8(15));
  return x;
}
KVASIR_LANES Codes high_nibbles(Codes x) {
  for (uint8x16_t& codes : x.q) codes = vshrq_n_u8(codes, 4);
  return x;
}
KVASIR_LANES FourCodes splat_four(const int8_t* codes) {
  return vreinterpretq_s8_s32(vdupq_n_s32(load_four_codes(codes)));
}
KVASIR_LANES DotSums no_dots() {
  return zero_ints();
}

template <int kBits>
KVASIR_LANES DotSums add_dots(DotSums sums, Codes weights, FourCodes x) {
  for (int i = 0; i < 4; ++i) {
    uint8x16_t codes = weights.q[i];
    if constexpr (kBits == 8) codes = veorq_u8(codes, vdupq_n_u8(0x80));
    sums.q[i] = vdotq_s32(sums.q[i], vreinterpretq_s8_u8(codes), x);
  }
  return sums;
}
// sum (code - zero) * x, given the sum of x. 8-bit codes were centred before the dot.
template <int kBits, int kZero>
KVASIR_LANES IntVec group_sums(DotSums sums, int32_t code_sum) {
  if constexpr (kBits == 8 || kZero == 0) return sums;
  const int32x4_t zeros = vdupq_n_s32(kZero * code_sum);
  for (int32x4_t& q : sums.q) q = vsubq_s32(q, zeros);
  return sums;
}

}  // namespace
}  // namespace kvasir::kernels
