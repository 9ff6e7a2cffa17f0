#include "quant/kv_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr std::array kDtypes{KvDtype::kF32, KvDtype::kBF16, KvDtype::kInt8};

std::vector<float> random_row(std::mt19937& engine, size_t size) {
  std::vector<float> row(size);
  for (float& value : row) value = static_cast<float>(engine()) * 0x1p-31F - 1.0F;
  return row;
}

struct Codes {
  std::vector<int8_t> codes;
  float scale;
};

Codes codes_of(const std::vector<float>& row) {
  float amax = 0.0F;
  for (const float value : row) amax = std::max(amax, std::abs(value));
  const float inverse = amax == 0.0F ? 0.0F : 127.0F / amax;
  Codes result{{}, amax / 127.0F};
  for (const float value : row) {
    result.codes.push_back(static_cast<int8_t>(std::nearbyint(value * inverse)));
  }
  return result;
}

std::vector<float> stored_form(KvDtype dtype, std::vector<float> row) {
  const Codes int8 = codes_of(row);
  for (size_t d = 0; d < row.size(); ++d) {
    if (dtype == KvDtype::kBF16) row[d] = round_to_bf16(row[d]);
    if (dtype == KvDtype::kInt8) row[d] = static_cast<float>(int8.codes[d]) * int8.scale;
  }
  return row;
}

std::vector<float> stored_key_form(KvDtype dtype, std::vector<float> row) {
  if (dtype != KvDtype::kInt8) return stored_form(dtype, std::move(row));
  mix_key(row);
  row = stored_form(dtype, std::move(row));
  mix_key(row);
  for (float& value : row) value /= key_mix_gain(row.size());
  return row;
}

TEST(KvTile, names_round_trip) {
  for (const KvDtype dtype : kDtypes) EXPECT_EQ(parse_kv_dtype(kv_dtype_name(dtype)), dtype);
  EXPECT_EQ(parse_kv_dtype("f16"), std::nullopt);
}

TEST(KvTile, every_slot_gives_back_what_was_rounded_into_it) {
  constexpr uint32_t kSeed = 51;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 engine(kSeed);
  for (const KvDtype dtype : kDtypes) {
    for (const uint32_t head_dim : {16u, 48u, 64u, 256u}) {
      for (const uint32_t block_tokens : {16u, 32u}) {
        const KvTileShape shape{.dtype = dtype, .head_dim = head_dim, .block_tokens = block_tokens};
        std::vector<std::byte> keys(shape.tile_bytes());
        std::vector<std::byte> values(shape.tile_bytes());
        std::vector<std::vector<float>> rows;
        for (uint32_t slot = 0; slot < block_tokens; ++slot) {
          rows.push_back(random_row(engine, head_dim));
          store_key(shape, rows[slot], slot, keys.data());
          store_value(shape, rows[slot], slot, values.data());
        }
        for (uint32_t slot = 0; slot < block_tokens; ++slot) {
          std::vector<float> key(head_dim);
          std::vector<float> value(head_dim);
          load_key(shape, keys.data(), slot, key);
          load_value(shape, values.data(), slot, value);
          ASSERT_EQ(key, stored_key_form(dtype, rows[slot])) << head_dim << ' ' << slot;
          ASSERT_EQ(value, stored_form(dtype, rows[slot])) << head_dim << ' ' << slot;
        }
      }
    }
  }
}

TEST(KvTile, cleared_slots_are_zero_and_earlier_ones_stay) {
  constexpr uint32_t kSeed = 52;
  SCOPED_TRACE("seed " + std::to_string(kSeed));
  std::mt19937 engine(kSeed);
  for (const KvDtype dtype : kDtypes) {
    const KvTileShape shape{.dtype = dtype, .head_dim = 32, .block_tokens = 16};
    for (uint32_t first = 0; first <= 16; ++first) {
      std::vector<std::byte> keys(shape.tile_bytes());
      std::vector<std::byte> values(shape.tile_bytes());
      std::vector<std::vector<float>> rows;
      for (uint32_t slot = 0; slot < 16; ++slot) {
        rows.push_back(random_row(engine, 32));
        store_key(shape, rows[slot], slot, keys.data());
        store_value(shape, rows[slot], slot, values.data());
      }
      clear_slots(shape, first, keys.data(), values.data());
      for (uint32_t slot = 0; slot < 16; ++slot) {
        const std::vector<float> row = slot < first ? rows[slot] : std::vector<float>(32, 0.0F);
        std::vector<float> key(32);
        std::vector<float> value(32);
        load_key(shape, keys.data(), slot, key);
        load_value(shape, values.data(), slot, value);
        ASSERT_EQ(key, stored_key_form(dtype, row)) << first << ' ' << slot;
        ASSERT_EQ(value, stored_form(dtype, row)) << first << ' ' << slot;
      }
    }
  }
}

TEST(KvTile, slots_use_every_byte_of_a_tile_once) {
  for (const KvDtype dtype : kDtypes) {
    const KvTileShape shape{.dtype = dtype, .head_dim = 32, .block_tokens = 16};
    // No byte is zero in any dtype, but the last two of an f32.
    const std::vector<float> row(32, -1.0F);
    for (const auto store : {store_key, store_value}) {
      std::vector<int> writes(shape.tile_bytes(), 0);
      for (uint32_t slot = 0; slot < 16; ++slot) {
        std::vector<std::byte> tile(shape.tile_bytes());
        store(shape, row, slot, tile.data());
        for (size_t i = 0; i < tile.size(); ++i) writes[i] += tile[i] != std::byte{0} ? 1 : 0;
      }
      for (size_t i = 0; i < writes.size(); ++i) {
        const bool upper_half = dtype != KvDtype::kF32 || i % 4 >= 2;
        ASSERT_EQ(writes[i], upper_half ? 1 : 0);
      }
    }
  }
}

// As in a block that was never written to: equal sequences must have equal bytes.
TEST(KvTile, cleared_slots_are_zero_bytes) {
  for (const KvDtype dtype : kDtypes) {
    const KvTileShape shape{.dtype = dtype, .head_dim = 32, .block_tokens = 16};
    for (uint32_t first = 0; first <= 16; ++first) {
      std::vector<std::byte> keys(shape.tile_bytes(), std::byte{0x3f});
      std::vector<std::byte> values = keys;
      clear_slots(shape, first, keys.data(), values.data());
      for (const auto& tile : {keys, values}) {
        const auto zeros = static_cast<size_t>(std::count(tile.begin(), tile.end(), std::byte{0}));
        ASSERT_EQ(zeros, tile.size() / 16 * (16 - first)) << kv_dtype_name(dtype) << ' ' << first;
      }
    }
  }
}

TEST(KvTile, int8_codes_span_the_row_and_round_to_even) {
  const KvTileShape shape{.dtype = KvDtype::kInt8, .head_dim = 16, .block_tokens = 16};
  std::vector<float> row(16, 0.0F);
  const float inputs[] = {254.0F, -254.0F, 1.0F, 3.0F, -1.0F, -3.0F, 6.0F, -0.0F};
  const int8_t expected[] = {127, -127, 0, 2, 0, -2, 3, 0};
  std::copy(std::begin(inputs), std::end(inputs), row.begin());
  std::vector<std::byte> keys(shape.tile_bytes());
  std::vector<std::byte> values(shape.tile_bytes());
  store_value(shape, row, 9, values.data());
  mix_key(row);  // so that mixing it once more gives it back
  for (float& x : row) x /= key_mix_gain(16);
  store_key(shape, row, 9, keys.data());
  std::vector<int8_t> codes(16);
  EXPECT_EQ(load_key_codes(shape, keys.data(), 9, codes), 2.0F);
  for (size_t d = 0; d < 8; ++d) EXPECT_EQ(codes[d], expected[d]) << d;
  EXPECT_EQ(load_value_codes(shape, values.data(), 9, codes), 2.0F);
  for (size_t d = 0; d < 8; ++d) EXPECT_EQ(codes[d], expected[d]) << d;
}

// Signs of a Walsh-Hadamard matrix: the parity of the bits that two indices share.
TEST(KvTile, mixing_is_a_walsh_hadamard_transform_over_every_fourth_dimension) {
  for (const size_t head_dim : {16u, 48u, 64u, 80u, 256u}) {
    const size_t block = std::bit_floor(head_dim) == head_dim ? head_dim : 16;
    for (size_t d = 0; d < head_dim; ++d) {
      std::vector<float> row(head_dim, 0.0F);
      row[d] = 1.0F;
      mix_key(row);
      for (size_t i = 0; i < head_dim; ++i) {
        const bool together = i / block == d / block && i % 4 == d % 4;
        const float sign = std::popcount(i % block / 4 & (d % block / 4)) % 2 == 0 ? 1.0F : -1.0F;
        ASSERT_EQ(row[i], together ? sign : 0.0F) << head_dim << ' ' << d << ' ' << i;
      }
      mix_key(row);
      ASSERT_EQ(row[d], key_mix_gain(head_dim));
    }
  }
}

TEST(KvTile, int8_row_with_a_number_that_is_not_finite_reads_back_not_finite) {
  const KvTileShape shape{.dtype = KvDtype::kInt8, .head_dim = 16, .block_tokens = 16};
  for (const float odd :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    std::vector<float> row(16, 1.0F);
    row[3] = odd;
    std::vector<std::byte> tile(shape.tile_bytes());
    store_value(shape, row, 0, tile.data());
    load_value(shape, tile.data(), 0, row);
    EXPECT_FALSE(std::isfinite(row[3])) << odd;
    EXPECT_FALSE(std::isfinite(row[4])) << odd;
  }
}

// The layout that kernels rely on, spelled out.
TEST(KvTile, layout_is_the_documented_one) {
  std::vector<float> row(32, 0.0F);
  row[5] = 1.5F;
  const KvTileShape f32{.dtype = KvDtype::kF32, .head_dim = 32, .block_tokens = 16};
  std::vector<float> tile(f32.tile_bytes() / 4);
  store_key(f32, row, 3, reinterpret_cast<std::byte*>(tile.data()));
  EXPECT_EQ(tile[5 * 16 + 3], 1.5F);
  store_value(f32, row, 4, reinterpret_cast<std::byte*>(tile.data()));
  EXPECT_EQ(tile[4 * 32 + 5], 1.5F);

  const KvTileShape bf16{.dtype = KvDtype::kBF16, .head_dim = 32, .block_tokens = 16};
  std::vector<uint16_t> halves(bf16.tile_bytes() / 2);
  store_key(bf16, row, 3, reinterpret_cast<std::byte*>(halves.data()));
  EXPECT_EQ(halves[(2 * 16 + 3) * 2 + 1], f32_to_bf16(1.5F));
  store_value(bf16, row, 7, reinterpret_cast<std::byte*>(halves.data()));
  EXPECT_EQ(halves[(3 * 32 + 5) * 2 + 1], f32_to_bf16(1.5F));

  const KvTileShape int8{.dtype = KvDtype::kInt8, .head_dim = 32, .block_tokens = 16};
  std::vector<std::byte> bytes(int8.tile_bytes());
  store_key(int8, row, 3, bytes.data());
  // Mixed, the 5th is 1.5 in dimensions 1, 9, 17, 25 and -1.5 in 5, 13, 21, 29.
  EXPECT_EQ(bytes[(9 / 4 * 16 + 3) * 4 + 9 % 4], std::byte{127 + 128});
  EXPECT_EQ(bytes[(13 / 4 * 16 + 3) * 4 + 13 % 4], std::byte{-127 + 128});
  EXPECT_EQ(bytes[(6 / 4 * 16 + 3) * 4 + 6 % 4], std::byte{0 + 128});
  store_value(int8, row, 7, bytes.data());
  EXPECT_EQ(bytes[7 * 32 + 5], std::byte{127});
  for (const size_t slot : {3u, 7u}) {
    float scale = 0.0F;
    std::memcpy(&scale, &bytes[32 * 16 + 4 * slot], 4);
    EXPECT_EQ(scale, 1.5F / 127.0F);
  }
}

TEST(KvTile, tiles_are_whole_lines) {
  for (const KvDtype dtype : kDtypes) {
    for (uint32_t head_dim = 16; head_dim <= 256; head_dim += 16) {
      for (const uint32_t block_tokens : {16u, 32u}) {
        const KvTileShape shape{.dtype = dtype, .head_dim = head_dim, .block_tokens = block_tokens};
        EXPECT_EQ(shape.tile_bytes() % 64, 0u);
        EXPECT_EQ(shape.tile_bytes(),
                  block_tokens * (head_dim * kv_element_bytes(dtype) + kv_scale_bytes(dtype)));
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::quant
