#include "quant/kv_tile.h"

#include <cstring>

#include "base/check.h"
#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr size_t kHeadDimMax = 256;

// Index of an element of a K tile, in elements.
size_t key_index(const KvTileShape& shape, size_t dim, size_t slot) {
  if (shape.dtype == KvDtype::kF32) return dim * shape.block_tokens + slot;
  return (dim / 2 * shape.block_tokens + slot) * 2 + dim % 2;
}

size_t value_index(const KvTileShape& shape, size_t dim, size_t slot) {
  if (shape.dtype == KvDtype::kF32) return slot * shape.head_dim + dim;
  return (slot / 2 * shape.head_dim + dim) * 2 + slot % 2;
}

using IndexOf = size_t (*)(const KvTileShape&, size_t dim, size_t slot);

void check_shape(const KvTileShape& shape, size_t row_size, uint32_t slot) {
  CHECK(shape.head_dim % 16 == 0);
  CHECK(row_size == shape.head_dim);
  CHECK(slot < shape.block_tokens);
}

template <IndexOf index_of>
void store_row(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
               std::byte* tile) {
  check_shape(shape, row.size(), slot);
  if (shape.dtype == KvDtype::kF32) {
    for (size_t d = 0; d < row.size(); ++d) {
      std::memcpy(tile + index_of(shape, d, slot) * 4, &row[d], 4);
    }
    return;
  }
  for (size_t d = 0; d < row.size(); ++d) {
    const uint16_t bits = f32_to_bf16(row[d]);
    std::memcpy(tile + index_of(shape, d, slot) * 2, &bits, 2);
  }
}

template <IndexOf index_of>
void load_row(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
              std::span<float> row) {
  check_shape(shape, row.size(), slot);
  if (shape.dtype == KvDtype::kF32) {
    for (size_t d = 0; d < row.size(); ++d) {
      std::memcpy(&row[d], tile + index_of(shape, d, slot) * 4, 4);
    }
    return;
  }
  for (size_t d = 0; d < row.size(); ++d) {
    uint16_t bits = 0;
    std::memcpy(&bits, tile + index_of(shape, d, slot) * 2, 2);
    row[d] = bf16_to_f32(bits);
  }
}

}  // namespace

std::optional<KvDtype> parse_kv_dtype(std::string_view name) {
  if (name == kv_dtype_name(KvDtype::kF32)) return KvDtype::kF32;
  if (name == kv_dtype_name(KvDtype::kBF16)) return KvDtype::kBF16;
  return std::nullopt;
}

std::string_view kv_dtype_name(KvDtype dtype) {
  return dtype == KvDtype::kF32 ? "f32" : "bf16";
}

void store_key(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
               std::byte* tile) {
  store_row<key_index>(shape, row, slot, tile);
}

void store_value(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
                 std::byte* tile) {
  store_row<value_index>(shape, row, slot, tile);
}

void clear_slots(const KvTileShape& shape, uint32_t first_slot, std::byte* key_tile,
                 std::byte* value_tile) {
  CHECK(shape.head_dim <= kHeadDimMax);
  constexpr std::array<float, kHeadDimMax> kZeros{};
  const auto zeros = std::span(kZeros).first(shape.head_dim);
  for (uint32_t slot = first_slot; slot < shape.block_tokens; ++slot) {
    store_key(shape, zeros, slot, key_tile);
    store_value(shape, zeros, slot, value_tile);
  }
}

void load_key(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
              std::span<float> row) {
  load_row<key_index>(shape, tile, slot, row);
}

void load_value(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                std::span<float> row) {
  load_row<value_index>(shape, tile, slot, row);
}

}  // namespace kvasir::quant
