#include "kv/layout.h"

namespace kvasir::kv {
namespace {

constexpr size_t kBlockAlignment = 64;

}  // namespace

BlockLayout::BlockLayout(const GroupShape& group, uint32_t block_tokens)
    : group_(group), tile_{group.dtype, group.head_dim, block_tokens} {
  CHECK(block_tokens == 16 || block_tokens == 32);
  CHECK(group.head_dim > 0 && group.head_dim % 16 == 0);
  CHECK(group.layers > 0);
  CHECK(group.kv_heads > 0);
  block_bytes_ = base::align_up(size_t{2} * group.layers * group.kv_heads * tile_.tile_bytes(),
                                kBlockAlignment);
}

}  // namespace kvasir::kv
