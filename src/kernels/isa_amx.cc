// The kernels for AMX, see layer.cmake for the flags: those for avx512, and attention by matrix
// tiles where the order of sums is theirs. Only raw pointers and trivial accessors of std types in
// here: scripts/check_isa_symbols fails if one of them is not inlined.

#include "base/check.h"
#include "kernels/bf16_probe.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"
#include "kernels/tiles_amx.h"
#include "kernels/vec_avx512.h"

#include "kernels/lanes.inc"

#include "kernels/attention_steps.inc"

#include "kernels/tiled_softmax_amx.inc"

#include "kernels/tiled_attention_amx.inc"

namespace kvasir::kernels {
namespace {

KernelTable table_on(KernelTable table) {
  table.isa = Isa::kAmx;
  table.attend_tiles = attend_tiles;
  return table;
}

}  // namespace

const KernelTable* amx_kernels() {
  static const KernelTable table = table_on(avx512_kernels());
  return is_exact_tile(one_tile) ? &table : nullptr;
}

}  // namespace kvasir::kernels
