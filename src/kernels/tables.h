// One kernel table per translation unit. isa_*.cc are compiled for their instruction set, so this
// function is all they define with external linkage (scripts/check_isa_symbols): anything more
// could be picked by the linker for code that must run on any processor.
#pragma once

#include "kernels/kernels.h"

namespace kvasir::kernels {

const KernelTable& reference_kernels();
#if defined(__x86_64__)
const KernelTable& avx2_kernels();     // needs AVX2, FMA, F16C
const KernelTable& avxvnni_kernels();  // needs AVX-VNNI, too
const KernelTable& avx512_kernels();   // needs AVX-512 F, BW, DQ, VL, VNNI
// Needs AVX-512 BF16, too. nullptr: its dots do not round as bf16_probe.h asks for. Probes each
// time.
const KernelTable* avx512bf16_kernels();
// Needs AMX-BF16, and the operating system's permission to use it. nullptr: its tiles do not round
// as bf16_probe.h asks for. Probes each time.
const KernelTable* amx_kernels();
#elif defined(__aarch64__)
const KernelTable& neon_kernels();  // needs the int8 dot product of Armv8.2
#endif

}  // namespace kvasir::kernels
