// The kernels for avx2, see layer.cmake for the flags. Only raw pointers and trivial accessors of
// std types in here: scripts/check_isa_symbols fails if one of them is not inlined.

#include "base/check.h"
#include "kernels/dots_avx2.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"

#include "kernels/lanes.inc"

#include "kernels/rowwise.inc"

#include "kernels/linear_tiles.inc"

#include "kernels/linear_q8.inc"

#include "kernels/linear_f32.inc"

#include "kernels/attention_tiles.inc"

#include "kernels/attention_bf16_fma.inc"

#include "kernels/attention_steps.inc"

#include "kernels/attention.inc"

#include "kernels/attention_chains.inc"

#include "kernels/attend.inc"

#include "kernels/table.inc"

namespace kvasir::kernels {

const KernelTable& avx2_kernels() {
  static constexpr KernelTable kTable = table_for(Isa::kAvx2);
  return kTable;
}

}  // namespace kvasir::kernels
