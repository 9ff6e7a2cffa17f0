#include "quant/packed.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "quant/decode.h"
#include "quant/half.h"

namespace kvasir::quant {
namespace {

constexpr size_t kLineBytes = kPanelRows * 4;                       // 32 rows x 4 columns of u8
constexpr size_t kByteCodesBytes = kLineBytes * kGroupColumns / 4;  // codes of a kQ8 group
constexpr size_t kNibbleCodesBytes = kByteCodesBytes / 2;           // codes of a kQ4 group
constexpr size_t kHalvesBytes = kPanelRows * 2;                     // 32 f16 scales or minima
constexpr size_t kMaxBlockBytes = 64;

size_t codes_bytes(PackedFormat format) {
  return format == PackedFormat::kQ4 || format == PackedFormat::kQ4Min ? kNibbleCodesBytes
                                                                       : kByteCodesBytes;
}

// The block types below lay out 32 elements; each knows where its scale (and minimum) is and how
// to write its codes as one row of a packed group. `row` points at the row's 4 bytes in line 0.

struct BlockQ8_0 {  // f16 scale, 32 x s8
  static constexpr size_t kBytes = 34;
  static constexpr bool kMin = false;
  static void pack_codes(const std::byte* block, std::byte* row) {
    for (size_t k4 = 0; k4 < 8; ++k4) {
      uint32_t codes = 0;
      std::memcpy(&codes, block + 2 + 4 * k4, 4);
      codes ^= 0x80808080u;  // + 128 in every byte
      std::memcpy(row + k4 * kLineBytes, &codes, 4);
    }
  }
};

// 32 codes of 5 bits: 16 bytes of nibbles (element i low, i + 16 high), bit i of `fifth` on top.
void pack_five_bit(const std::byte* nibbles, uint32_t fifth, uint32_t bias, std::byte* row) {
  for (size_t i = 0; i < kGroupColumns; ++i) {
    const auto pair = std::to_integer<uint32_t>(nibbles[i % 16]);
    const uint32_t low = i < 16 ? pair & 15u : pair >> 4;
    const uint32_t code = low | (((fifth >> i) & 1u) << 4);
    row[i / 4 * kLineBytes + i % 4] = static_cast<std::byte>(code + bias);
  }
}

struct BlockQ5_0 {  // f16 scale, u32 fifth bits, 16 x nibbles; zero at 16
  static constexpr size_t kBytes = 22;
  static constexpr bool kMin = false;
  static void pack_codes(const std::byte* block, std::byte* row) {
    uint32_t fifth = 0;
    std::memcpy(&fifth, block + 2, 4);
    pack_five_bit(block + 6, fifth, 128 - 16, row);
  }
};

struct BlockQ5_1 {  // f16 scale, f16 minimum, u32 fifth bits, 16 x nibbles
  static constexpr size_t kBytes = 24;
  static constexpr bool kMin = true;
  static void pack_codes(const std::byte* block, std::byte* row) {
    uint32_t fifth = 0;
    std::memcpy(&fifth, block + 4, 4);
    pack_five_bit(block + 8, fifth, 128, row);
  }
};

// The nibble order of the file is that of a packed line: only the rows are interleaved.
void pack_nibbles(const std::byte* nibbles, std::byte* row) {
  for (size_t j = 0; j < 4; ++j) std::memcpy(row + j * kLineBytes, nibbles + 4 * j, 4);
}

struct BlockQ4_0 {  // f16 scale, 16 x nibbles; zero at 8
  static constexpr size_t kBytes = 18;
  static constexpr bool kMin = false;
  static void pack_codes(const std::byte* block, std::byte* row) { pack_nibbles(block + 2, row); }
};

struct BlockQ4_1 {  // f16 scale, f16 minimum, 16 x nibbles
  static constexpr size_t kBytes = 20;
  static constexpr bool kMin = true;
  static void pack_codes(const std::byte* block, std::byte* row) { pack_nibbles(block + 4, row); }
};

struct PanelTarget {
  PackedFormat format;
  size_t index;
  std::byte* data;
};

template <typename Block>
void pack_integer_panel(const PackSource& source, const PanelTarget& panel) {
  static constexpr std::array<std::byte, kMaxBlockBytes> kZeroBlock{};  // for rows past the end
  const size_t row_bytes = row_size_bytes(source.type, source.columns);
  const size_t scales_offset = codes_bytes(panel.format);
  std::byte* group = panel.data;
  for (size_t g = 0; g < source.columns / kGroupColumns; ++g) {
    for (size_t r = 0; r < kPanelRows; ++r) {
      const size_t row = panel.index * kPanelRows + r;
      const std::byte* block = row < source.rows
                                   ? source.bytes.data() + row * row_bytes + g * Block::kBytes
                                   : kZeroBlock.data();
      Block::pack_codes(block, group + 4 * r);
      std::memcpy(group + scales_offset + 2 * r, block, 2);
      if (Block::kMin) std::memcpy(group + scales_offset + kHalvesBytes + 2 * r, block + 2, 2);
    }
    group += step_bytes(panel.format);
  }
}

// Interleaves rows of T, as stored, 16 columns at a time so that reads and writes stay in cache.
template <typename T>
void pack_float_panel(const PackSource& source, const PanelTarget& panel) {
  constexpr size_t kChunk = 16;
  T lines[kChunk][kPanelRows];
  for (size_t first = 0; first < source.columns; first += kChunk) {
    const size_t count = std::min(kChunk, source.columns - first);
    std::memset(lines, 0, sizeof lines);
    for (size_t r = 0; r < kPanelRows; ++r) {
      const size_t row = panel.index * kPanelRows + r;
      if (row >= source.rows) break;
      T values[kChunk];
      std::memcpy(values, source.bytes.data() + (row * source.columns + first) * sizeof(T),
                  count * sizeof(T));
      for (size_t k = 0; k < count; ++k) lines[k][r] = values[k];
    }
    std::memcpy(panel.data + first * sizeof lines[0], lines, count * sizeof lines[0]);
  }
}

// Any type, decoded to f32 in pieces of 32 columns (a whole number of blocks of every type).
void pack_decoded_panel(const PackSource& source, const PanelTarget& panel) {
  const size_t row_bytes = row_size_bytes(source.type, source.columns);
  float lines[kGroupColumns][kPanelRows];
  for (size_t first = 0; first < source.columns; first += kGroupColumns) {
    const size_t count = std::min(kGroupColumns, source.columns - first);
    std::memset(lines, 0, sizeof lines);
    for (size_t r = 0; r < kPanelRows; ++r) {
      const size_t row = panel.index * kPanelRows + r;
      if (row >= source.rows) break;
      float values[kGroupColumns];
      const size_t offset = row * row_bytes + row_size_bytes(source.type, first);
      decode_row(source.type, source.bytes.subspan(offset, row_size_bytes(source.type, count)),
                 {values, count});
      for (size_t k = 0; k < count; ++k) lines[k][r] = values[k];
    }
    std::memcpy(panel.data + first * sizeof lines[0], lines, count * sizeof lines[0]);
  }
}

using PackPanel = void (*)(const PackSource&, const PanelTarget&);

PackPanel panel_packer(TensorType type, PackedFormat format) {
  if (format != native_format(type)) return pack_decoded_panel;
  switch (type) {
    case TensorType::kF32:
      return pack_float_panel<uint32_t>;
    case TensorType::kF16:
    case TensorType::kBF16:
      return pack_float_panel<uint16_t>;
    case TensorType::kQ4_0:
      return pack_integer_panel<BlockQ4_0>;
    case TensorType::kQ4_1:
      return pack_integer_panel<BlockQ4_1>;
    case TensorType::kQ5_0:
      return pack_integer_panel<BlockQ5_0>;
    case TensorType::kQ5_1:
      return pack_integer_panel<BlockQ5_1>;
    case TensorType::kQ8_0:
      return pack_integer_panel<BlockQ8_0>;
  }
  CHECK(false);  // not a tensor type
  return nullptr;
}

float half_at(const std::byte* bytes, size_t index) {
  uint16_t half = 0;
  std::memcpy(&half, bytes + 2 * index, 2);
  return f16_to_f32(half);
}

int32_t code_at(PackedFormat format, const std::byte* group, size_t row, size_t column) {
  if (codes_bytes(format) == kByteCodesBytes) {
    return std::to_integer<int32_t>(group[column / 4 * kLineBytes + 4 * row + column % 4]);
  }
  const auto pair =
      std::to_integer<int32_t>(group[column % 16 / 4 * kLineBytes + 4 * row + column % 4]);
  return column < 16 ? pair & 15 : pair >> 4;
}

void unpack_integer_row(PackedFormat format, const std::byte* panel, size_t row,
                        std::span<float> out) {
  for (size_t k = 0; k < out.size(); ++k) {
    const std::byte* group = panel + k / kGroupColumns * step_bytes(format);
    const std::byte* scales = group + codes_bytes(format);
    const int32_t code = code_at(format, group, row, k % kGroupColumns) - code_zero(format);
    const float value = static_cast<float>(code) * half_at(scales, row);
    out[k] = has_minimum(format) ? value + half_at(scales + kHalvesBytes, row) : value;
  }
}

}  // namespace

std::string_view format_name(PackedFormat format) {
  switch (format) {
    case PackedFormat::kF32:
      return "f32";
    case PackedFormat::kF16:
      return "f16";
    case PackedFormat::kBF16:
      return "bf16";
    case PackedFormat::kQ8:
      return "q8";
    case PackedFormat::kQ8Min:
      return "q8min";
    case PackedFormat::kQ4:
      return "q4";
    case PackedFormat::kQ4Min:
      return "q4min";
  }
  CHECK(false);  // not a format
  return {};
}

PackedFormat native_format(TensorType type) {
  switch (type) {
    case TensorType::kF32:
      return PackedFormat::kF32;
    case TensorType::kF16:
      return PackedFormat::kF16;
    case TensorType::kBF16:
      return PackedFormat::kBF16;
    case TensorType::kQ5_0:
    case TensorType::kQ8_0:
      return PackedFormat::kQ8;
    case TensorType::kQ5_1:
      return PackedFormat::kQ8Min;
    case TensorType::kQ4_0:
      return PackedFormat::kQ4;
    case TensorType::kQ4_1:
      return PackedFormat::kQ4Min;
  }
  CHECK(false);  // not a tensor type
  return {};
}

size_t step_bytes(PackedFormat format) {
  if (format == PackedFormat::kF32) return kPanelRows * 4;
  if (!is_integer(format)) return kPanelRows * 2;
  return codes_bytes(format) + (has_minimum(format) ? 2 : 1) * kHalvesBytes;
}

size_t PackedMatrix::panel_bytes() const {
  return step_bytes(format) * (is_integer(format) ? columns / kGroupColumns : columns);
}

size_t packed_size_bytes(PackedFormat format, size_t rows, size_t columns) {
  const PackedMatrix shape{.format = format, .rows = rows, .columns = columns, .data = nullptr};
  return shape.panels() * shape.panel_bytes();
}

void pack_panels(const PackSource& source, PackedFormat format, size_t first_panel,
                 size_t last_panel, std::span<std::byte> destination) {
  const PackedMatrix shape{
      .format = format, .rows = source.rows, .columns = source.columns, .data = nullptr};
  CHECK(format == native_format(source.type) || format == PackedFormat::kF32);
  CHECK(!is_integer(format) || source.columns % kGroupColumns == 0);
  CHECK(source.bytes.size() == source.rows * row_size_bytes(source.type, source.columns));
  CHECK(destination.size() >= shape.panels() * shape.panel_bytes());
  CHECK(first_panel <= last_panel && last_panel <= shape.panels());
  const PackPanel pack = panel_packer(source.type, format);
  for (size_t p = first_panel; p < last_panel; ++p) {
    pack(source, {format, p, destination.data() + p * shape.panel_bytes()});
  }
}

void unpack_row(const PackedMatrix& matrix, size_t row, std::span<float> out) {
  CHECK(row < matrix.rows);
  CHECK(out.size() == matrix.columns);
  const std::byte* panel = matrix.panel(row / kPanelRows);
  const size_t lane = row % kPanelRows;
  if (is_integer(matrix.format)) return unpack_integer_row(matrix.format, panel, lane, out);
  for (size_t k = 0; k < out.size(); ++k) {
    const std::byte* line = panel + k * step_bytes(matrix.format);
    if (matrix.format == PackedFormat::kF32) {
      std::memcpy(&out[k], line + 4 * lane, 4);
      continue;
    }
    uint16_t half = 0;
    std::memcpy(&half, line + 2 * lane, 2);
    out[k] = matrix.format == PackedFormat::kF16 ? f16_to_f32(half) : bf16_to_f32(half);
  }
}

}  // namespace kvasir::quant
