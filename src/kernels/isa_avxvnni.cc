// The kernels for avxvnni, see layer.cmake for the flags: those for avx2, and linear layers by the
// int8 dot product. Only raw pointers and trivial accessors of std types in here:
// scripts/check_isa_symbols fails if one of them is not inlined.

#include "base/check.h"
#include "kernels/dots_avxvnni.h"
#include "kernels/exp_constants.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"

#include "kernels/lanes.inc"

#include "kernels/linear_tiles.inc"

#include "kernels/linear_q8.inc"

namespace kvasir::kernels {
namespace {

KernelTable table_on(KernelTable table) {
  table.isa = Isa::kAvxVnni;
  table.linear_q8 = linear_q8;
  return table;
}

}  // namespace

const KernelTable& avxvnni_kernels() {
  static const KernelTable table = table_on(avx2_kernels());
  return table;
}

}  // namespace kvasir::kernels
