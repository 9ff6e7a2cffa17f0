// One key of a GGUF file and where its value lies. Values stay in the file until they are asked
// for, so that opening costs no copy of a vocabulary.
//
// Thread: immutable. Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kvasir::gguf {

// Values are those of the file format.
enum class ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

struct MetadataEntry {
  std::string_view key;
  ValueType type = ValueType::kUint8;  // of the value, or of every element of an array
  bool is_array = false;
  uint64_t count = 1;                // elements of an array
  std::span<const std::byte> bytes;  // the encoded value or elements, checked
};

// nullopt: not a type of the format.
std::optional<ValueType> parse_value_type(uint32_t id);
std::string_view value_type_name(ValueType type);
// nullopt: strings and arrays, whose size varies.
std::optional<uint64_t> fixed_size_bytes(ValueType type);

// Requires: a fixed-size type of that many bytes at `at`. nullopt: not an integer type, or a
// value that the result can not hold.
std::optional<uint64_t> load_unsigned(ValueType type, const std::byte* at);
std::optional<int64_t> load_signed(ValueType type, const std::byte* at);
// nullopt: not a floating-point type.
std::optional<double> load_float(ValueType type, const std::byte* at);

// Text from a file, safe inside a one-line message: quoted, escaped, cut when long.
std::string printable(std::string_view text);

}  // namespace kvasir::gguf
