// A counter-based random generator: the value is a pure function of (key, counter), so a draw can
// be repeated, skipped or computed on another machine. Philox-4x32-10 (Salmon et al., "Parallel
// random numbers: as easy as 1, 2, 3", SC 2011).
//
// Thread: any. Allocates: never.
#pragma once

#include <array>
#include <cstdint>

namespace kvasir::base {

struct RngKey {
  uint64_t seed = 0;
  uint64_t choice = 0;  // which of several samples of one request
};

// 128 random bits for `counter` (a position).
std::array<uint32_t, 4> random_bits(RngKey key, uint64_t counter);

// Uniform in [0, 1) with 53 bits.
double random_unit(RngKey key, uint64_t counter);

}  // namespace kvasir::base
