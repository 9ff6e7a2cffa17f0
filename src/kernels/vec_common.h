// What all vector headers use. Only isa_*.cc include this; everything has internal linkage.
#pragma once

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

// Four activation codes as one 32-bit number.
KVASIR_LANES int32_t load_four_codes(const int8_t* codes) {
  int32_t four = 0;
  std::memcpy(&four, codes, 4);
  return four;
}

// Asks for memory, no nearer than the second-level cache: what waits in the first one would push
// out what is worked with, and processors can await fewer lines there (Zen 4: 24).
KVASIR_LANES void prefetch(const std::byte* from, size_t size_bytes) {
  for (size_t at = 0; at < size_bytes; at += 64) __builtin_prefetch(from + at, 0, 2);
}

}  // namespace
}  // namespace kvasir::kernels
