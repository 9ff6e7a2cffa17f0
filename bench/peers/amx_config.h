// Compiled before every file of llama.cpp. GCC 12 believes that _tile_loadconfig reads 8 of the 64
// bytes it is given and drops the stores to the others, so that llama.cpp ends with a segmentation
// fault on processors with AMX. This one says what is read; the instruction is the same.
#pragma once
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) \
  __asm__ volatile("ldtilecfg %0" : : "m"(*reinterpret_cast<const char(*)[64]>(config)))
#endif
