// What the kernel tests share: seeded numbers, packed matrices, quantised rows and comparison of
// bits. Thread: any. Allocates: freely. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/fp_env.h"
#include "kernels/kernels.h"

namespace kvasir::kernels::testing {

// Half the size of the last bit of a number near 1: the largest relative error of one rounding.
constexpr double kUnit = 0x1p-24;

class Random {
 public:
  explicit Random(uint32_t seed)
      : engine_(seed), trace_(__FILE__, __LINE__, "seed " + std::to_string(seed)) {}

  uint32_t below(uint32_t limit) { return static_cast<uint32_t>(engine_() % limit); }
  float uniform(float low, float high) {
    return low + (high - low) * static_cast<float>(engine_() >> 8) * 0x1p-24F;
  }
  std::vector<float> vector(size_t size, float low, float high) {
    std::vector<float> values(size);
    for (float& value : values) value = uniform(low, high);
    return values;
  }

 private:
  std::mt19937 engine_;
  ::testing::ScopedTrace trace_;  // prints the seed when a test fails
};

// Equal bits; all NaNs count as equal, because their payload is the processor's choice.
inline ::testing::AssertionResult same_bits(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size()) return ::testing::AssertionFailure() << "sizes differ";
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (std::bit_cast<uint32_t>(a[i]) != std::bit_cast<uint32_t>(b[i])) {
      return ::testing::AssertionFailure()
             << "element " << i << " of " << a.size() << ": " << a[i] << " is not " << b[i];
    }
  }
  return ::testing::AssertionSuccess();
}

inline const KernelTable& reference() {
  return *find_kernels(Isa::kReference);
}

// Every instruction set of this processor but the reference.
inline std::vector<Isa> fast_isas() {
  std::vector<Isa> isas = supported_isas();
  std::erase(isas, Isa::kReference);
  return isas;
}

// A packed matrix with its memory.
struct OwnedMatrix {
  base::AlignedBuffer memory;
  quant::PackedMatrix matrix;
};

// Random weights in any format: codes of every value, scales and minima of both signs.
inline OwnedMatrix random_matrix(Random& random, quant::PackedFormat format, size_t rows,
                                 size_t columns) {
  OwnedMatrix owned;
  const size_t size = quant::packed_size_bytes(format, rows, columns);
  owned.memory = base::AlignedBuffer::create(size).value();
  owned.matrix = {.format = format, .rows = rows, .columns = columns, .data = owned.memory.data()};
  const auto bytes = owned.memory.as<uint8_t>(0, size);
  const size_t step = quant::step_bytes(format);
  const size_t minima = quant::has_minimum(format) ? 64 : 0;
  for (size_t at = 0; at < size; at += 4) {
    uint32_t word = random.below(UINT32_MAX);
    // Floats and halves between 2^-k and 2^k: clear the exponent's upper bits, set the bias.
    if (format == quant::PackedFormat::kF32 || format == quant::PackedFormat::kBF16) {
      word = (word & 0x80ff80ffu) | 0x3f003f00u;
    } else if (format == quant::PackedFormat::kF16 || at % step >= step - 64 - minima) {
      word = (word & 0x8fff8fffu) | 0x20002000u;
    }
    std::memcpy(&bytes[at], &word, 4);
  }
  return owned;
}

// Quantised rows with their memory.
struct OwnedRows {
  explicit OwnedRows(size_t rows, size_t columns)
      : codes(base::AlignedBuffer::create(rows * columns).value()),
        scales(rows * columns / quant::kHalfColumns),
        code_sums(scales.size()),
        sums(rows * columns / 32) {
    view = {.rows = rows,
            .columns = columns,
            .codes = codes.as<int8_t>(0, rows * columns).data(),
            .scales = scales.data(),
            .code_sums = code_sums.data(),
            .sums = sums.data()};
  }

  base::AlignedBuffer codes;
  std::vector<float> scales;
  std::vector<int32_t> code_sums;
  std::vector<float> sums;
  quant::QuantizedRows view;
};

}  // namespace kvasir::kernels::testing
