// Whether a processor's dot product of bf16 pairs computes what kernels.h defines. Manuals describe
// the instruction in the same words, but not every maker's rounds the sum between the two products
// or flushes denormals in the same way, so its bits are compared before it is used.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstdint>

namespace kvasir::kernels {

// sums[i] += a[2i + 1] * b[2i + 1], then sums[i] += a[2i] * b[2i], for 16 pairs of bf16.
using PairDots = void (*)(const uint16_t* a, const uint16_t* b, float* sums);

// Each addition is a fused multiply-add in base::ScopedFpEnv, for some thousand pairs: ordinary
// numbers, cancelling sums, the edges of overflow and of denormals, denormals and zeros.
bool is_exact_dot(PairDots dots);

// sums[n] += even + odd, the two chains of kernels.h (attend_tiles) over the products
// a[k] * b[k / 2][n][k % 2].
//   a [32], b [16][16][2], sums [16]
using TileDots = void (*)(const uint16_t* a, const uint16_t* b, float* sums);
bool is_exact_tile(TileDots dots);

}  // namespace kvasir::kernels
