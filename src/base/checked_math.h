// Arithmetic on untrusted sizes: nullopt instead of wrapping. Thread: any. Allocates: never.
#pragma once

#include <bit>
#include <cstdint>
#include <optional>

#include "base/check.h"

namespace kvasir::base {

constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t sum = 0;
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

constexpr std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t product = 0;
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

// ceil(a / b). Requires b > 0.
constexpr uint64_t div_ceil(uint64_t a, uint64_t b) {
  return a / b + (a % b != 0 ? 1 : 0);
}

// Smallest multiple of `alignment` that is >= n. Requires: no overflow, alignment a power of two.
constexpr uint64_t align_up(uint64_t n, uint64_t alignment) {
  return (n + alignment - 1) & ~(alignment - 1);
}

}  // namespace kvasir::base
