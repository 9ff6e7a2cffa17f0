// Where everything lies inside a KV block. A block holds `block_tokens` tokens of all layers of
// one KV group, contiguous in memory (one block = one copy, one write to disk):
//
//   block:  layer 0                              | layer 1 | ...  (padded to 64 bytes)
//           head 0: K tile, V tile | head 1 ...  |
//
// A KV group is a set of layers whose keys and values live equally long; a llama has one. Every
// group has blocks of its own size and each sequence one block table per group.
//
// Thread: a value type. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "base/checked_math.h"
#include "quant/kv_tile.h"

namespace kvasir::kv {

constexpr size_t kGroupsMax = 4;

enum class GroupKind : uint8_t {
  kFull,           // every later token reads it
  kSlidingWindow,  // only the next `window_tokens` - 1 tokens read it
  kCross,          // of the encoder's input: written once, read by every token of the decoder
};

struct GroupShape {
  uint32_t layers = 0;
  uint32_t kv_heads = 0;
  uint32_t head_dim = 0;
  quant::KvDtype dtype = quant::KvDtype::kBF16;
  GroupKind kind = GroupKind::kFull;
  // kSlidingWindow: the row at position p reads positions p - window_tokens + 1 .. p.
  uint32_t window_tokens = 0;
};

class BlockLayout {
 public:
  BlockLayout() = default;
  // Requires: block_tokens is 16 or 32, head_dim a multiple of 16.
  BlockLayout(const GroupShape& group, uint32_t block_tokens);

  const GroupShape& group() const { return group_; }
  const quant::KvTileShape& tile() const { return tile_; }
  uint32_t block_tokens() const { return tile_.block_tokens; }
  size_t block_bytes() const { return block_bytes_; }

  // Offsets of a tile inside a block. Requires: layer and kv_head in range.
  size_t key_offset(uint32_t layer, uint32_t kv_head) const {
    CHECK(layer < group_.layers);
    CHECK(kv_head < group_.kv_heads);
    return (size_t{layer} * group_.kv_heads + kv_head) * 2 * tile_.tile_bytes();
  }
  size_t value_offset(uint32_t layer, uint32_t kv_head) const {
    return key_offset(layer, kv_head) + tile_.tile_bytes();
  }

  // 2 x layers x kv_heads x head_dim x bytes per element: the textbook formula.
  uint64_t payload_bytes_per_token() const {
    return rows_per_token() * group_.head_dim * quant::kv_element_bytes(group_.dtype);
  }
  // Of the dtypes that have them; not in the formula.
  uint64_t scale_bytes_per_token() const {
    return rows_per_token() * quant::kv_scale_bytes(group_.dtype);
  }
  uint64_t bytes_per_token() const { return payload_bytes_per_token() + scale_bytes_per_token(); }
  uint64_t blocks_for(uint64_t tokens) const { return base::div_ceil(tokens, block_tokens()); }

 private:
  // A key and a value for each head of each layer.
  uint64_t rows_per_token() const { return uint64_t{2} * group_.layers * group_.kv_heads; }

  GroupShape group_;
  quant::KvTileShape tile_;
  size_t block_bytes_ = 0;
};

}  // namespace kvasir::kv
