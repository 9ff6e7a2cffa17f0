// The tensor types a GGUF file can name, and the size of their blocks. Layouts of the blocks are
// described beside their decoders in quant/decode.cc.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvasir::quant {

// Values are the type ids of the file format.
enum class TensorType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kBF16 = 30,
};

struct TensorTypeInfo {
  TensorType type;
  std::string_view name;    // as people write it: "Q4_1"
  uint32_t block_elements;  // a row is a whole number of blocks
  uint32_t block_bytes;
};

// nullptr: a type id this build can not decode.
const TensorTypeInfo* find_tensor_type(uint32_t type_id);
// Requires: one of the enumerators.
const TensorTypeInfo& tensor_type_info(TensorType type);
// Name of any type id the format has ever defined, decodable here or not; nullopt: never defined.
std::optional<std::string_view> tensor_type_name(uint32_t type_id);

// Bytes of a row of `columns` elements. Requires: columns % block_elements == 0.
uint64_t row_size_bytes(TensorType type, uint64_t columns);

}  // namespace kvasir::quant
