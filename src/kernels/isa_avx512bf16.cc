// The kernels for avx512bf16, see layer.cmake for the flags. Only raw pointers and trivial
// accessors of std types in here: scripts/check_isa_symbols fails if one of them is not inlined.
#if defined(__x86_64__)

#include "base/check.h"
#include "kernels/bf16_probe.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"
#include "kernels/vec_avx512.h"

#include "kernels/rowwise.inc"

#include "kernels/linear.inc"

#include "kernels/attention_tiles.inc"

#include "kernels/attention_bf16_dot.inc"

#include "kernels/attention.inc"

#include "kernels/attention_chains.inc"

namespace kvasir::kernels {
namespace {
constexpr auto attend_tiles = attend_chains;
}  // namespace
}  // namespace kvasir::kernels

#include "kernels/table.inc"

namespace kvasir::kernels {

const KernelTable* avx512bf16_kernels() {
  static constexpr KernelTable kTable = table_for(Isa::kAvx512Bf16);
  return is_exact_dot(dot_16_pairs) ? &kTable : nullptr;
}

}  // namespace kvasir::kernels

#endif
