// How the keys and values of one (layer, KV head) lie inside a block of `block_tokens` tokens.
//
//   kF32   K [head_dim][tokens]          V [tokens][head_dim]          f32
//   kBF16  K [head_dim / 2][tokens][2]   V [tokens / 2][head_dim][2]   bf16
//   kInt8  K [head_dim / 4][tokens][4]   V [tokens][head_dim]          codes, then f32 scales
//          of the tokens: [tokens]
//
// K puts tokens in neighbouring lanes, so scores for 16 keys fill one vector; V puts head
// dimensions in neighbouring lanes. The innermost pairs of kBF16 are what a bf16 dot product reads,
// the innermost fours of kInt8 what an 8-bit one does: u8, the code plus 128, times s8.
//
// The row x of one token in kInt8 is, in f32 arithmetic,
//   amax = max |x[d]|,  scale = amax / 127,  code[d] = round_to_even(x[d] * (127 / amax))
// and all zero when amax is 0. A row with a NaN or an infinity gets a scale that is not finite.
// Keys are mixed first (mix_key), because a few large dimensions would take the codes of all.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kvasir::quant {

enum class KvDtype : uint8_t { kF32, kBF16, kInt8 };

std::optional<KvDtype> parse_kv_dtype(std::string_view name);  // "f32", "bf16", "int8"
std::string_view kv_dtype_name(KvDtype dtype);
constexpr size_t kv_element_bytes(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF32:
      return 4;
    case KvDtype::kBF16:
      return 2;
    case KvDtype::kInt8:
      return 1;
  }
  return 0;
}
// Beside the elements of one token's key or value of one head.
constexpr size_t kv_scale_bytes(KvDtype dtype) {
  return dtype == KvDtype::kInt8 ? sizeof(float) : 0;
}

struct KvTileShape {
  KvDtype dtype = KvDtype::kBF16;
  uint32_t head_dim = 0;      // a multiple of 16, at most 256
  uint32_t block_tokens = 0;  // 16 or 32

  // A K tile and a V tile have the same size; both are multiples of 64 bytes.
  size_t tile_bytes() const { return scales_offset() + block_tokens * kv_scale_bytes(dtype); }
  size_t scales_offset() const { return size_t{head_dim} * block_tokens * kv_element_bytes(dtype); }
};

// Stores one token's key or value at `slot` (< block_tokens), rounding to the dtype.
//   row  [head_dim]
void store_key(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
               std::byte* tile);
void store_value(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
                 std::byte* tile);

// Slots [first_slot, block_tokens) of both tiles become zero bytes, as in a block never written to.
void clear_slots(const KvTileShape& shape, uint32_t first_slot, std::byte* key_tile,
                 std::byte* value_tile);

// What attention will read there, as f32.
void load_key(const KvTileShape& shape, const std::byte* tile, uint32_t slot, std::span<float> row);
void load_value(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                std::span<float> row);

// kInt8: a Walsh-Hadamard transform over dimensions that are a multiple of 4 apart, in blocks of
// the largest power of two that divides the number of dimensions. Steps of 4, 8, 16 ..., each
// turning (a, b) into (a + b, a - b). Keys and queries are both mixed, which leaves their products
// as they were, times key_mix_gain.
//   row  [head_dim]
void mix_key(std::span<float> row);
// Mixing twice multiplies by this, a power of two.
constexpr float key_mix_gain(size_t head_dim) {
  const size_t gain = (head_dim & (~head_dim + 1)) / 4;
  return static_cast<float>(gain);
}

// kInt8: the codes themselves, keys mixed. Returns their scale.
//   codes  [head_dim]
float load_key_codes(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                     std::span<int8_t> codes);
float load_value_codes(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                       std::span<int8_t> codes);

}  // namespace kvasir::quant
