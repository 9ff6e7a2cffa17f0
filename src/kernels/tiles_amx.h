// Matrix tiles: eight registers of 16 rows of 64 bytes. Rows of A hold 32 bf16; rows of B hold
// pairs for 16 columns; rows of C hold 16 f32. C += A B in the order of additions of kernels.h.
// Written as assembly, because compilers of this age do not know which memory their intrinsics
// touch. Only isa_amx.cc includes this; everything has internal linkage.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/vec_x86.h"

namespace kvasir::kernels {
namespace {

// What tile registers are for: C is 0 .. 3, A 4 and 5, B 6 and 7.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};
};

// A and C with `rows` rows, B with all 16.
TileConfig tile_config(size_t rows) {
  TileConfig config;
  for (size_t i = 0; i < 6; ++i) config.rows[i] = static_cast<uint8_t>(rows);
  for (size_t i = 6; i < 8; ++i) config.rows[i] = 16;
  return config;
}

// Tiles work while this lives.
class ScopedTiles {
 public:
  explicit ScopedTiles(const TileConfig& config) { asm volatile("ldtilecfg %0" : : "m"(config)); }
  ~ScopedTiles() { asm volatile("tilerelease" : : : "memory"); }
  ScopedTiles(const ScopedTiles&) = delete;
  ScopedTiles& operator=(const ScopedTiles&) = delete;
};

template <int kTile>
KVASIR_LANES void tile_load(const void* from, size_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2"
               :
               : "r"(from), "r"(stride_bytes), "i"(kTile)
               : "memory");
}
template <int kTile>
KVASIR_LANES void tile_store(void* to, size_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)"
               :
               : "r"(to), "r"(stride_bytes), "i"(kTile)
               : "memory");
}
template <int kTile>
KVASIR_LANES void tile_zero() {
  asm volatile("tilezero %%tmm%c0" : : "i"(kTile) : "memory");
}
// C += A B
template <int kC, int kA, int kB>
KVASIR_LANES void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(kC), "i"(kA), "i"(kB) : "memory");
}

// For is_exact_tile().
void one_tile(const uint16_t* a, const uint16_t* b, float* sums) {
  const ScopedTiles tiles(tile_config(1));
  tile_load<0>(sums, 64);
  tile_load<4>(a, 64);
  tile_load<6>(b, 64);
  tile_multiply<0, 4, 6>();
  tile_store<0>(sums, 64);
}

}  // namespace
}  // namespace kvasir::kernels
