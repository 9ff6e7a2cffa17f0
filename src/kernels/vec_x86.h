// What both x86 vector headers use. Only isa_*.cc include this; everything has internal linkage.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

// Lane operations must become instructions, never calls.
#define KVASIR_LANES [[gnu::always_inline]] inline

// Register tiles live in small arrays; they stay in registers only if loops over them are unrolled.
#if defined(__clang__)
#define KVASIR_UNROLL _Pragma("clang loop unroll(full)")
#else
#define KVASIR_UNROLL _Pragma("GCC unroll 16")
#endif

namespace kvasir::kernels {
namespace {

// Lanes 8 .. 15 are already folded in: fold 4, 2, 1.
KVASIR_LANES float fold_sum8(__m256 x) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// maxps(a, b) is a > b ? a : b, also for NaN and zeros.
KVASIR_LANES float fold_max8(__m256 x) {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

KVASIR_LANES int32_t fold_sum8(__m256i x) {
  const __m128i four = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i two = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

KVASIR_LANES int32_t fold_max8(__m256i x) {
  const __m128i four = _mm_max_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
  const __m128i two = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_max_epi32(two, _mm_shuffle_epi32(two, 0xb1)));
}

// Four activation codes as one 32-bit number.
KVASIR_LANES int32_t load_four_codes(const int8_t* codes) {
  int32_t four = 0;
  std::memcpy(&four, codes, 4);
  return four;
}

KVASIR_LANES void prefetch(const std::byte* from, size_t size_bytes) {
  for (size_t at = 0; at < size_bytes; at += 64) {
    _mm_prefetch(reinterpret_cast<const char*>(from + at), _MM_HINT_T0);
  }
}

}  // namespace
}  // namespace kvasir::kernels
