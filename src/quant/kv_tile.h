// How the keys and values of one (layer, KV head) lie inside a block of `block_tokens` tokens.
//
//   kF32   K [head_dim][tokens]          V [tokens][head_dim]          f32
//   kBF16  K [head_dim / 2][tokens][2]   V [tokens / 2][head_dim][2]   bf16
//
// K puts tokens in neighbouring lanes, so scores for 16 keys fill one vector; V puts head
// dimensions in neighbouring lanes. The innermost pairs of kBF16 are what a bf16 dot product reads.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kvasir::quant {

enum class KvDtype : uint8_t { kF32, kBF16 };

std::optional<KvDtype> parse_kv_dtype(std::string_view name);  // "f32", "bf16"
std::string_view kv_dtype_name(KvDtype dtype);
constexpr size_t kv_element_bytes(KvDtype dtype) {
  return dtype == KvDtype::kF32 ? 4 : 2;
}

struct KvTileShape {
  KvDtype dtype = KvDtype::kBF16;
  uint32_t head_dim = 0;      // a multiple of 16
  uint32_t block_tokens = 0;  // 16 or 32

  // A K tile and a V tile have the same size; both are multiples of 64 bytes.
  size_t tile_bytes() const { return size_t{head_dim} * block_tokens * kv_element_bytes(dtype); }
};

// Stores one token's key or value at `slot` (< block_tokens), rounding to the dtype.
//   row  [head_dim]
void store_key(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
               std::byte* tile);
void store_value(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
                 std::byte* tile);

// Slots [first_slot, block_tokens) of both tiles become zero.
void clear_slots(const KvTileShape& shape, uint32_t first_slot, std::byte* key_tile,
                 std::byte* value_tile);

// What attention will read there, as f32.
void load_key(const KvTileShape& shape, const std::byte* tile, uint32_t slot, std::span<float> row);
void load_value(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                std::span<float> row);

}  // namespace kvasir::quant
