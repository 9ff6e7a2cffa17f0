// Weight matrices in the few formats that kernels read. A matrix y = W x with W [rows, columns]
// (rows = output features) is cut in panels of 32 rows; a panel is one sequential stream over
// columns, so a kernel that owns some panels reads memory strictly forward.
//
//   panel p: rows 32p .. 32p+31 (rows past the end are zero)
//
//   kF32, kF16, kBF16   for each column k: 32 elements, one per row
//   kQ8, kQ8Min         for each group of 32 columns:
//                         8 x 128 bytes: for k4 = 0..7: 32 rows x 4 consecutive columns,
//                             u8 = weight code + 128
//                         32 f16 scales            (one per row)
//                         32 f16 minima            (kQ8Min only)
//   kQ4, kQ4Min         for each group of 32 columns:
//                         4 x 128 bytes: for j = 0..3: 32 rows x 4 bytes; the low nibbles are
//                             columns 4j..4j+3, the high nibbles columns 16+4j..16+4j+3
//                         32 f16 scales
//                         32 f16 minima            (kQ4Min only)
//
// Value of an element: kQ8 (u8 - 128) * scale; kQ8Min (u8 - 128) * scale + min;
// kQ4 (u4 - 8) * scale; kQ4Min u4 * scale + min. 64 bytes hold 16 rows x 4 columns: one
// AVX-512 VNNI operand, two AVX2 ones, four NEON ones.
//
// Thread: any. Allocates: never; the destination belongs to the caller.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "quant/types.h"

namespace kvasir::quant {

enum class PackedFormat : uint8_t { kF32, kF16, kBF16, kQ8, kQ8Min, kQ4, kQ4Min };

constexpr size_t kPanelRows = 32;
constexpr size_t kGroupColumns = 32;

// True where activations are quantised to 8 bits too (quant/activations.h).
constexpr bool is_integer(PackedFormat format) {
  return format >= PackedFormat::kQ8;
}
constexpr bool has_minimum(PackedFormat format) {
  return format == PackedFormat::kQ8Min || format == PackedFormat::kQ4Min;
}
// What is subtracted from a stored code before it is scaled.
constexpr int32_t code_zero(PackedFormat format) {
  return format == PackedFormat::kQ4 ? 8 : format == PackedFormat::kQ4Min ? 0 : 128;
}
std::string_view format_name(PackedFormat format);

// The lossless kernel format of a stored type.
PackedFormat native_format(TensorType type);

// A packed matrix that somebody else owns.
struct PackedMatrix {
  PackedFormat format = PackedFormat::kF32;
  size_t rows = 0;
  size_t columns = 0;               // is_integer(format): a multiple of 32
  const std::byte* data = nullptr;  // 64-byte aligned

  size_t panels() const { return (rows + kPanelRows - 1) / kPanelRows; }
  size_t panel_bytes() const;
  const std::byte* panel(size_t index) const { return data + index * panel_bytes(); }
};

// Bytes of one panel's group of 32 columns (integer formats) or of one column (float formats).
size_t step_bytes(PackedFormat format);
// Bytes of a whole matrix, padding rows included; a multiple of 64.
size_t packed_size_bytes(PackedFormat format, size_t rows, size_t columns);

// Packs rows stored in GGUF blocks into panels [first_panel, last_panel) of `destination`, which
// holds the whole matrix. Panels are independent, so threads may pack ranges of one matrix.
//   source       rows * row_size_bytes(type, columns) bytes
//   destination  packed_size_bytes(format, rows, columns) bytes
// Requires: format == native_format(type) or kF32 (then values are decoded first).
struct PackSource {
  TensorType type;
  size_t rows;
  size_t columns;
  std::span<const std::byte> bytes;
};
void pack_panels(const PackSource& source, PackedFormat format, size_t first_panel,
                 size_t last_panel, std::span<std::byte> destination);

// Row `row` as f32: codes times scales, exactly the values the kernels multiply with.
//   out  [columns]
void unpack_row(const PackedMatrix& matrix, size_t row, std::span<float> out);

}  // namespace kvasir::quant
