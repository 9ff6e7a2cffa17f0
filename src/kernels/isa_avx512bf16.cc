// The kernels for avx512bf16, see layer.cmake for the flags: those for avx512, and attention over
// bf16 by its dot product. Only raw pointers and trivial accessors of std types in here:
// scripts/check_isa_symbols fails if one of them is not inlined.

#include "base/check.h"
#include "kernels/bf16_probe.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"
#include "kernels/vec_avx512.h"

#include "kernels/lanes.inc"

#include "kernels/attention_tiles.inc"

#include "kernels/attention_bf16_dot.inc"

#include "kernels/attention_steps.inc"

#include "kernels/attention.inc"

namespace kvasir::kernels {
namespace {

void attend(const AttentionArgs& args) {
  if (args.tile.dtype != quant::KvDtype::kBF16) return avx512_kernels().attend(args);
  check_args(args);
  attend_tokens<TilesBF16>(args);
}

KernelTable table_on(KernelTable table) {
  table.isa = Isa::kAvx512Bf16;
  table.attend = attend;
  return table;
}

}  // namespace

const KernelTable* avx512bf16_kernels() {
  static const KernelTable table = table_on(avx512_kernels());
  return is_exact_dot(dot_16_pairs) ? &table : nullptr;
}

}  // namespace kvasir::kernels
