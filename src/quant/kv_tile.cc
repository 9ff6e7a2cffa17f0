#include "quant/kv_tile.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr std::array kDtypes{KvDtype::kF32, KvDtype::kBF16, KvDtype::kInt8};
constexpr size_t kHeadDimMax = 256;
constexpr size_t kLaneBytes = 4;  // of a key's elements that lie together in a K tile

// A row as it is stored, elements in order; keys of kInt8 are s8 here, too.
struct StoredRow {
  alignas(64) std::array<std::byte, kHeadDimMax * sizeof(float)> bytes;
  float scale = 0.0F;
};

void check_shape(const KvTileShape& shape, size_t row_size, uint32_t slot) {
  CHECK(shape.head_dim % 16 == 0 && shape.head_dim <= kHeadDimMax);
  CHECK(row_size == shape.head_dim);
  CHECK(slot < shape.block_tokens);
}

// The loops over elements are written for the compiler's vectoriser: one row is stored for each
// token, layer and head.
void encode_bf16(std::span<const float> row, std::byte* bytes) {
  std::array<uint16_t, kHeadDimMax> halves;
  for (size_t d = 0; d < row.size(); ++d) halves[d] = f32_to_bf16(row[d]);
  std::memcpy(bytes, halves.data(), row.size() * sizeof(uint16_t));
}

float encode_int8(std::span<const float> row, std::byte* bytes) {
  // Magnitudes compare like their bits; a NaN is above infinity, so it spoils the scale.
  int32_t bits_max = 0;
  for (const float x : row) {
    bits_max = std::max(bits_max, std::bit_cast<int32_t>(x) & 0x7fffffff);
  }
  const auto amax = std::bit_cast<float>(bits_max);
  const float inverse = amax == 0.0F ? 0.0F : 127.0F / amax;
  constexpr float kRound = 0x1.8p23F;  // added to a small number: its integer in the low bits
  for (size_t d = 0; d < row.size(); ++d) {
    const float value = row[d] * inverse;
    const float raised = value > -127.0F ? value : -127.0F;  // NaN gives -127
    const float clamped = raised < 127.0F ? raised : 127.0F;
    bytes[d] = static_cast<std::byte>(std::bit_cast<int32_t>(clamped + kRound) & 0xff);
  }
  return amax / 127.0F;
}

// What of a key is encoded.
std::span<const float> mixed_key(const KvTileShape& shape, std::span<const float> row,
                                 std::span<float> scratch) {
  if (shape.dtype != KvDtype::kInt8) return row;
  std::copy(row.begin(), row.end(), scratch.begin());
  mix_key(scratch.first(row.size()));
  return scratch.first(row.size());
}

void encode(KvDtype dtype, std::span<const float> row, StoredRow& stored) {
  switch (dtype) {
    case KvDtype::kF32:
      std::memcpy(stored.bytes.data(), row.data(), row.size_bytes());
      return;
    case KvDtype::kBF16:
      encode_bf16(row, stored.bytes.data());
      return;
    case KvDtype::kInt8:
      stored.scale = encode_int8(row, stored.bytes.data());
      return;
  }
}

void decode(KvDtype dtype, const StoredRow& stored, std::span<float> row) {
  switch (dtype) {
    case KvDtype::kF32:
      std::memcpy(row.data(), stored.bytes.data(), row.size_bytes());
      return;
    case KvDtype::kBF16:
      for (size_t d = 0; d < row.size(); ++d) {
        uint16_t bits = 0;
        std::memcpy(&bits, &stored.bytes[2 * d], 2);
        row[d] = bf16_to_f32(bits);
      }
      return;
    case KvDtype::kInt8:
      for (size_t d = 0; d < row.size(); ++d) {
        row[d] = static_cast<float>(static_cast<int8_t>(stored.bytes[d])) * stored.scale;
      }
      return;
  }
}

// Between the codes of keys, s8, and what lies in a K tile, u8. Its own inverse.
void shift_codes(const KvTileShape& shape, StoredRow& stored) {
  if (shape.dtype != KvDtype::kInt8) return;
  for (size_t d = 0; d < shape.head_dim; ++d) stored.bytes[d] ^= std::byte{0x80};
}

size_t row_bytes(const KvTileShape& shape) {
  return shape.head_dim * kv_element_bytes(shape.dtype);
}

size_t scale_offset(const KvTileShape& shape, uint32_t slot) {
  return shape.scales_offset() + slot * sizeof(float);
}

void store_scale(const KvTileShape& shape, const StoredRow& stored, uint32_t slot,
                 std::byte* tile) {
  if (kv_scale_bytes(shape.dtype) == 0) return;
  std::memcpy(tile + scale_offset(shape, slot), &stored.scale, sizeof(float));
}

void fetch_scale(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                 StoredRow& stored) {
  if (kv_scale_bytes(shape.dtype) == 0) return;
  std::memcpy(&stored.scale, tile + scale_offset(shape, slot), sizeof(float));
}

// Where a token's values begin, and the distance between them.
struct ValuePlaces {
  size_t first;
  size_t stride;
};
ValuePlaces value_places(const KvTileShape& shape, uint32_t slot) {
  if (shape.dtype != KvDtype::kBF16)
    return {slot * row_bytes(shape), kv_element_bytes(shape.dtype)};
  return {slot / 2 * 2 * row_bytes(shape) + slot % 2 * 2, 4};
}

void fetch_key(const KvTileShape& shape, const std::byte* tile, uint32_t slot, StoredRow& stored) {
  for (size_t at = 0; at < row_bytes(shape); at += kLaneBytes) {
    std::memcpy(&stored.bytes[at], tile + at * shape.block_tokens + slot * kLaneBytes, kLaneBytes);
  }
  shift_codes(shape, stored);
  fetch_scale(shape, tile, slot, stored);
}

void fetch_value(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                 StoredRow& stored) {
  const size_t size = kv_element_bytes(shape.dtype);
  const auto [first, stride] = value_places(shape, slot);
  for (size_t d = 0; d < shape.head_dim; ++d) {
    std::memcpy(&stored.bytes[d * size], tile + first + d * stride, size);
  }
  fetch_scale(shape, tile, slot, stored);
}

float copy_codes(const KvTileShape& shape, const StoredRow& stored, std::span<int8_t> codes) {
  CHECK(shape.dtype == KvDtype::kInt8);
  std::memcpy(codes.data(), stored.bytes.data(), codes.size());
  return stored.scale;
}

}  // namespace

std::optional<KvDtype> parse_kv_dtype(std::string_view name) {
  for (const KvDtype dtype : kDtypes) {
    if (name == kv_dtype_name(dtype)) return dtype;
  }
  return std::nullopt;
}

std::string_view kv_dtype_name(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kF32:
      return "f32";
    case KvDtype::kBF16:
      return "bf16";
    case KvDtype::kInt8:
      return "int8";
  }
  CHECK(false);  // not a dtype
  return {};
}

void mix_key(std::span<float> row) {
  const size_t block = row.size() & (~row.size() + 1);
  for (size_t half = 4; half < block; half *= 2) {
    for (size_t first = 0; first < row.size(); first += 2 * half) {
      for (size_t i = first; i < first + half; ++i) {
        const float a = row[i];
        const float b = row[i + half];
        row[i] = a + b;
        row[i + half] = a - b;
      }
    }
  }
}

void store_key(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
               std::byte* tile) {
  check_shape(shape, row.size(), slot);
  StoredRow stored;
  std::array<float, kHeadDimMax> scratch;
  encode(shape.dtype, mixed_key(shape, row, scratch), stored);
  shift_codes(shape, stored);
  std::byte* to = tile + slot * kLaneBytes;
  for (size_t at = 0; at < row_bytes(shape); at += kLaneBytes) {
    std::memcpy(to + at * shape.block_tokens, &stored.bytes[at], kLaneBytes);
  }
  store_scale(shape, stored, slot, tile);
}

void store_value(const KvTileShape& shape, std::span<const float> row, uint32_t slot,
                 std::byte* tile) {
  check_shape(shape, row.size(), slot);
  StoredRow stored;
  encode(shape.dtype, row, stored);
  std::byte* to = tile + value_places(shape, slot).first;
  if (shape.dtype == KvDtype::kBF16) {
    // The other key of the pair may be written by another thread meanwhile: no wider stores.
    for (size_t d = 0; d < row.size(); ++d) std::memcpy(to + 4 * d, &stored.bytes[2 * d], 2);
  } else {
    std::memcpy(to, stored.bytes.data(), row_bytes(shape));
  }
  store_scale(shape, stored, slot, tile);
}

void clear_slots(const KvTileShape& shape, uint32_t first_slot, std::byte* key_tile,
                 std::byte* value_tile) {
  CHECK(first_slot <= shape.block_tokens);
  const size_t slots = shape.block_tokens - first_slot;
  for (size_t at = 0; at < row_bytes(shape); at += kLaneBytes) {
    std::memset(key_tile + at * shape.block_tokens + first_slot * kLaneBytes, 0,
                slots * kLaneBytes);
  }
  uint32_t slot = first_slot;
  if (shape.dtype == KvDtype::kBF16 && slot % 2 == 1) {
    std::byte* odd = value_tile + value_places(shape, slot).first;
    for (size_t d = 0; d < shape.head_dim; ++d) std::memset(odd + 4 * d, 0, 2);
    ++slot;
  }
  const size_t begin = slot * row_bytes(shape);
  std::memset(value_tile + begin, 0, shape.scales_offset() - begin);
  for (std::byte* tile : {key_tile, value_tile}) {
    std::memset(tile + shape.scales_offset() + first_slot * kv_scale_bytes(shape.dtype), 0,
                slots * kv_scale_bytes(shape.dtype));
  }
}

void load_key(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
              std::span<float> row) {
  check_shape(shape, row.size(), slot);
  StoredRow stored;
  fetch_key(shape, tile, slot, stored);
  decode(shape.dtype, stored, row);
  if (shape.dtype != KvDtype::kInt8) return;
  mix_key(row);
  for (float& x : row) x /= key_mix_gain(shape.head_dim);
}

void load_value(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                std::span<float> row) {
  check_shape(shape, row.size(), slot);
  StoredRow stored;
  fetch_value(shape, tile, slot, stored);
  decode(shape.dtype, stored, row);
}

float load_key_codes(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                     std::span<int8_t> codes) {
  check_shape(shape, codes.size(), slot);
  StoredRow stored;
  fetch_key(shape, tile, slot, stored);
  return copy_codes(shape, stored, codes);
}

float load_value_codes(const KvTileShape& shape, const std::byte* tile, uint32_t slot,
                       std::span<int8_t> codes) {
  check_shape(shape, codes.size(), slot);
  StoredRow stored;
  fetch_value(shape, tile, slot, stored);
  return copy_codes(shape, stored, codes);
}

}  // namespace kvasir::quant
