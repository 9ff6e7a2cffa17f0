#include "quant/decode.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "quant/half.h"

// Blocks of 32 elements, fields in file order, little endian:
//   Q8_0  f16 scale; 32 x i8 code                                value = code * scale
//   Q4_0  f16 scale; 16 bytes of nibbles                         value = (code - 8) * scale
//   Q4_1  f16 scale; f16 minimum; 16 bytes of nibbles            value = code * scale + minimum
//   Q5_0  f16 scale; u32 high bits; 16 bytes of nibbles          value = (code - 16) * scale
//   Q5_1  f16 scale; f16 minimum; u32 high bits; 16 x nibbles    value = code * scale + minimum
// Nibbles: the low one of byte j is element j, the high one element j + 16. Bit i of the high bits
// is bit 4 of element i's code.
namespace kvasir::quant {
namespace {

static_assert(std::endian::native == std::endian::little, "stored numbers are read in place");

constexpr size_t kBlock = 32;

template <typename T>
T load(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

float load_f16(const std::byte* at) {
  return f16_to_f32(load<uint16_t>(at));
}

int32_t nibble(const std::byte* codes, size_t element) {
  const auto pair = std::to_integer<int32_t>(codes[element % 16]);
  return element < 16 ? pair & 15 : pair >> 4;
}

int32_t five_bits(const std::byte* codes, uint32_t high_bits, size_t element) {
  return nibble(codes, element) | static_cast<int32_t>(((high_bits >> element) & 1U) << 4);
}

void decode_block(TensorType type, const std::byte* block, float* out) {
  const float scale = load_f16(block);
  for (size_t i = 0; i < kBlock; ++i) {
    switch (type) {
      case TensorType::kQ8_0:
        out[i] = static_cast<float>(load<int8_t>(block + 2 + i)) * scale;
        break;
      case TensorType::kQ4_0:
        out[i] = static_cast<float>(nibble(block + 2, i) - 8) * scale;
        break;
      case TensorType::kQ4_1:
        out[i] = static_cast<float>(nibble(block + 4, i)) * scale + load_f16(block + 2);
        break;
      case TensorType::kQ5_0:
        out[i] =
            static_cast<float>(five_bits(block + 6, load<uint32_t>(block + 2), i) - 16) * scale;
        break;
      case TensorType::kQ5_1:
        out[i] = static_cast<float>(five_bits(block + 8, load<uint32_t>(block + 4), i)) * scale +
                 load_f16(block + 2);
        break;
      default:
        CHECK(false);
    }
  }
}

float decode_scalar(TensorType type, const std::byte* at) {
  switch (type) {
    case TensorType::kF32:
      return load<float>(at);
    case TensorType::kF16:
      return load_f16(at);
    default:
      return bf16_to_f32(load<uint16_t>(at));
  }
}

}  // namespace

void decode_row(TensorType type, std::span<const std::byte> bytes, std::span<float> out) {
  const TensorTypeInfo& info = tensor_type_info(type);
  CHECK(bytes.size() == row_size_bytes(type, out.size()));
  if (info.block_elements == 1) {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = decode_scalar(type, bytes.data() + i * info.block_bytes);
    }
    return;
  }
  for (size_t block = 0; block < out.size() / kBlock; ++block) {
    decode_block(type, bytes.data() + block * info.block_bytes, out.data() + block * kBlock);
  }
}

}  // namespace kvasir::quant
