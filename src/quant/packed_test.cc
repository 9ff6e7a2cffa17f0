#include "quant/packed.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quant/decode.h"
#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr std::array kTypes{TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                            TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
                            TensorType::kQ5_1, TensorType::kQ8_0};

// A tensor of random bytes; scales, minima and floats are made finite.
struct Tensor {
  Tensor(TensorType type, size_t rows, size_t columns, uint32_t seed)
      : trace(__FILE__, __LINE__, "seed " + std::to_string(seed)),
        bytes(rows * row_size_bytes(type, columns)),
        source{.type = type, .rows = rows, .columns = columns, .bytes = bytes} {
    std::mt19937 engine(seed);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(engine() & 0xffu);
    const TensorTypeInfo& info = tensor_type_info(type);
    if (info.block_elements == 1) {
      // The last byte of an element holds the sign and the top of the exponent.
      for (size_t i = info.block_bytes - 1; i < bytes.size(); i += info.block_bytes) {
        bytes[i] &= std::byte{0xbf};
      }
      return;
    }
    for (size_t block = 0; block < bytes.size(); block += info.block_bytes) {
      bytes[block + 1] &= std::byte{0xbf};  // f16 scale
      bytes[block + 3] &= std::byte{0xbf};  // f16 minimum, or two codes
    }
  }

  std::vector<float> decoded(size_t row) const {
    std::vector<float> out(source.columns);
    const size_t size = row_size_bytes(source.type, source.columns);
    decode_row(source.type, source.bytes.subspan(row * size, size), out);
    return out;
  }

  ::testing::ScopedTrace trace;
  std::vector<std::byte> bytes;
  PackSource source;
};

std::vector<std::byte> pack(const Tensor& tensor, PackedFormat format) {
  const PackSource& source = tensor.source;
  std::vector<std::byte> packed(packed_size_bytes(format, source.rows, source.columns),
                                std::byte{0xee});
  pack_panels(source, format, 0, (source.rows + 31) / 32, packed);
  return packed;
}

std::vector<float> unpacked(const Tensor& tensor, PackedFormat format,
                            const std::vector<std::byte>& packed, size_t row) {
  std::vector<float> out(tensor.source.columns);
  unpack_row({.format = format,
              .rows = tensor.source.rows,
              .columns = tensor.source.columns,
              .data = packed.data()},
             row, out);
  return out;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

std::vector<size_t> some_columns(TensorType type) {
  if (tensor_type_info(type).block_elements == 1) return {1, 15, 32, 33, 100};
  return {32, 64, 576};
}

TEST(Packed, sizes_are_whole_panels_of_whole_lines) {
  EXPECT_EQ(packed_size_bytes(PackedFormat::kQ4, 32, 32), 512u + 64);
  EXPECT_EQ(packed_size_bytes(PackedFormat::kQ4Min, 33, 64), 2u * 2 * (512 + 128));
  EXPECT_EQ(packed_size_bytes(PackedFormat::kQ8, 1, 32), 1024u + 64);
  EXPECT_EQ(packed_size_bytes(PackedFormat::kQ8Min, 64, 32), 2u * (1024 + 128));
  EXPECT_EQ(packed_size_bytes(PackedFormat::kF32, 31, 7), 7u * 128);
  EXPECT_EQ(packed_size_bytes(PackedFormat::kF16, 32, 3), 3u * 64);
  EXPECT_EQ(packed_size_bytes(PackedFormat::kBF16, 0, 3), 0u);
}

// Q4_1 and Q5_1 may be decoded with or without fma by their definition; the packed value is code
// times scale plus minimum with two roundings, as are decoded ones.
TEST(Packed, native_format_is_lossless) {
  for (const TensorType type : kTypes) {
    for (const size_t rows : {1u, 31u, 32u, 33u, 70u}) {
      for (const size_t columns : some_columns(type)) {
        const Tensor tensor(type, rows, columns, 41);
        const PackedFormat format = native_format(type);
        const std::vector<std::byte> packed = pack(tensor, format);
        for (size_t row = 0; row < rows; ++row) {
          ASSERT_TRUE(same_bits(unpacked(tensor, format, packed, row), tensor.decoded(row)))
              << tensor_type_info(type).name << ' ' << rows << 'x' << columns << " row " << row;
        }
      }
    }
  }
}

TEST(Packed, f32_holds_the_decoded_values_of_every_type) {
  for (const TensorType type : kTypes) {
    for (const size_t columns : some_columns(type)) {
      const Tensor tensor(type, 37, columns, 42);
      const std::vector<std::byte> packed = pack(tensor, PackedFormat::kF32);
      for (size_t row = 0; row < 37; ++row) {
        ASSERT_TRUE(
            same_bits(unpacked(tensor, PackedFormat::kF32, packed, row), tensor.decoded(row)))
            << tensor_type_info(type).name << ' ' << columns << " row " << row;
      }
    }
  }
}

// Threads pack ranges of panels: a range writes its panels and nothing else.
TEST(Packed, panels_are_independent) {
  for (const TensorType type : kTypes) {
    const Tensor tensor(type, 100, 64, 43);
    const PackedFormat format = native_format(type);
    const std::vector<std::byte> whole = pack(tensor, format);
    const size_t panel_bytes = whole.size() / 4;
    std::vector<std::byte> pieces(whole.size(), std::byte{0x55});
    pack_panels(tensor.source, format, 2, 3, pieces);
    for (size_t i = 0; i < pieces.size(); ++i) {
      ASSERT_EQ(pieces[i], i / panel_bytes == 2 ? whole[i] : std::byte{0x55});
    }
    pack_panels(tensor.source, format, 3, 4, pieces);
    pack_panels(tensor.source, format, 0, 2, pieces);
    EXPECT_EQ(pieces, whole) << tensor_type_info(type).name;
  }
}

TEST(Packed, rows_past_the_end_are_zero) {
  for (const TensorType type : kTypes) {
    const Tensor tensor(type, 5, 64, 44);
    const PackedFormat format = native_format(type);
    const std::vector<std::byte> packed = pack(tensor, format);
    const PackedMatrix padded{.format = format, .rows = 32, .columns = 64, .data = packed.data()};
    for (size_t row = 5; row < 32; ++row) {
      std::vector<float> values(64, 1.0F);
      unpack_row(padded, row, values);
      for (const float value : values) {
        ASSERT_EQ(value, 0.0F) << tensor_type_info(type).name << " row " << row;
      }
    }
  }
}

// The layout that kernels rely on, spelled out for one element of each width.
TEST(Packed, layout_is_the_documented_one) {
  const Tensor q8(TensorType::kQ8_0, 40, 64, 45);
  const std::vector<std::byte> bytes = pack(q8, PackedFormat::kQ8);
  // Row 35, column 32 + 13: panel 1, group 1, line 3, row 3, byte 1; the block is 34 bytes.
  const size_t group = (1024 + 64) * 3;
  const auto code = std::to_integer<uint8_t>(bytes[group + 3 * 128 + 3 * 4 + 1]);
  const auto stored = std::to_integer<uint8_t>(q8.bytes[(35 * 2 + 1) * 34 + 2 + 13]);
  EXPECT_EQ(code, static_cast<uint8_t>(stored + 128));
  EXPECT_EQ(bytes[group + 1024 + 2 * 3], q8.bytes[(35 * 2 + 1) * 34]);

  const Tensor q4(TensorType::kQ4_1, 40, 64, 46);
  const std::vector<std::byte> nibbles = pack(q4, PackedFormat::kQ4Min);
  // Column 13 is the low nibble of byte 13 of the block, column 29 the high one: line 3, byte 1.
  const size_t group4 = (512 + 128) * 3;
  EXPECT_EQ(nibbles[group4 + 3 * 128 + 3 * 4 + 1], q4.bytes[(35 * 2 + 1) * 20 + 4 + 13]);
  EXPECT_EQ(nibbles[group4 + 512 + 64 + 2 * 3], q4.bytes[(35 * 2 + 1) * 20 + 2]);
}

TEST(Packed, formats_have_names_and_zeros) {
  EXPECT_EQ(format_name(PackedFormat::kQ4Min), "q4min");
  EXPECT_EQ(code_zero(PackedFormat::kQ4), 8);
  EXPECT_EQ(code_zero(PackedFormat::kQ4Min), 0);
  EXPECT_EQ(code_zero(PackedFormat::kQ8Min), 128);
  EXPECT_TRUE(is_integer(PackedFormat::kQ8));
  EXPECT_FALSE(is_integer(PackedFormat::kBF16));
}

}  // namespace
}  // namespace kvasir::quant
