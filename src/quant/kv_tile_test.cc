#include "quant/kv_tile.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr std::array kDtypes{KvDtype::kF32, KvDtype::kBF16};

std::vector<float> random_row(std::mt19937& engine, size_t size) {
  std::vector<float> row(size);
  for (float& value : row) value = static_cast<float>(engine()) * 0x1p-31F - 1.0F;
  return row;
}

std::vector<float> stored_form(KvDtype dtype, std::vector<float> row) {
  if (dtype == KvDtype::kBF16) {
    for (float& value : row) value = round_to_bf16(value);
  }
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
          ASSERT_EQ(key, stored_form(dtype, rows[slot])) << head_dim << ' ' << slot;
          ASSERT_EQ(value, stored_form(dtype, rows[slot])) << head_dim << ' ' << slot;
        }
      }
    }
  }
}

TEST(KvTile, cleared_slots_are_zero_and_earlier_ones_stay) {
  for (const KvDtype dtype : kDtypes) {
    const KvTileShape shape{.dtype = dtype, .head_dim = 32, .block_tokens = 16};
    for (uint32_t first = 0; first <= 16; ++first) {
      std::vector<std::byte> keys(shape.tile_bytes(), std::byte{0x3f});
      std::vector<std::byte> values = keys;
      clear_slots(shape, first, keys.data(), values.data());
      for (uint32_t slot = 0; slot < 16; ++slot) {
        std::vector<float> key(32);
        std::vector<float> value(32);
        load_key(shape, keys.data(), slot, key);
        load_value(shape, values.data(), slot, value);
        for (size_t d = 0; d < 32; ++d) {
          ASSERT_EQ(key[d] == 0.0F, slot >= first) << first << ' ' << slot;
          ASSERT_EQ(value[d] == 0.0F, slot >= first) << first << ' ' << slot;
        }
      }
    }
  }
}

TEST(KvTile, slots_use_every_byte_of_a_tile_once) {
  for (const KvDtype dtype : kDtypes) {
    const KvTileShape shape{.dtype = dtype, .head_dim = 32, .block_tokens = 16};
    const std::vector<float> row(32, -1.0F);  // no byte of its last two is zero in any dtype
    for (const auto store : {store_key, store_value}) {
      std::vector<int> writes(shape.tile_bytes(), 0);
      for (uint32_t slot = 0; slot < 16; ++slot) {
        std::vector<std::byte> tile(shape.tile_bytes());
        store(shape, row, slot, tile.data());
        for (size_t i = 0; i < tile.size(); ++i) writes[i] += tile[i] != std::byte{0} ? 1 : 0;
      }
      for (size_t i = 0; i < writes.size(); ++i) {
        const bool upper_half = dtype == KvDtype::kBF16 || i % 4 >= 2;
        ASSERT_EQ(writes[i], upper_half ? 1 : 0);
      }
    }
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
}

TEST(KvTile, tiles_are_whole_lines) {
  for (const KvDtype dtype : kDtypes) {
    for (uint32_t head_dim = 16; head_dim <= 256; head_dim += 16) {
      for (const uint32_t block_tokens : {16u, 32u}) {
        const KvTileShape shape{.dtype = dtype, .head_dim = head_dim, .block_tokens = block_tokens};
        EXPECT_EQ(shape.tile_bytes() % 64, 0u);
        EXPECT_EQ(shape.tile_bytes(), size_t{head_dim} * block_tokens * kv_element_bytes(dtype));
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::quant
