#include "gguf/metadata.h"

#include <fmt/format.h>

#include <array>
#include <utility>

#include "gguf/byte_reader.h"

namespace kvasir::gguf {
namespace {

struct TypeRow {
  std::string_view name;
  uint64_t size_bytes;  // 0: varies
};

// Indexed by type id.
constexpr std::array<TypeRow, 13> kTypes = {{{"UINT8", 1},
                                             {"INT8", 1},
                                             {"UINT16", 2},
                                             {"INT16", 2},
                                             {"UINT32", 4},
                                             {"INT32", 4},
                                             {"FLOAT32", 4},
                                             {"BOOL", 1},
                                             {"STRING", 0},
                                             {"ARRAY", 0},
                                             {"UINT64", 8},
                                             {"INT64", 8},
                                             {"FLOAT64", 8}}};

const TypeRow& row_of(ValueType type) {
  return kTypes[static_cast<size_t>(type)];
}

template <typename To, typename From>
std::optional<To> fitting(From value) {
  if (!std::in_range<To>(value)) return std::nullopt;
  return static_cast<To>(value);
}

template <typename To>
std::optional<To> load_integer(ValueType type, const std::byte* at) {
  switch (type) {
    case ValueType::kUint8:
      return fitting<To>(load_number<uint8_t>(at));
    case ValueType::kInt8:
      return fitting<To>(load_number<int8_t>(at));
    case ValueType::kUint16:
      return fitting<To>(load_number<uint16_t>(at));
    case ValueType::kInt16:
      return fitting<To>(load_number<int16_t>(at));
    case ValueType::kUint32:
      return fitting<To>(load_number<uint32_t>(at));
    case ValueType::kInt32:
      return fitting<To>(load_number<int32_t>(at));
    case ValueType::kUint64:
      return fitting<To>(load_number<uint64_t>(at));
    case ValueType::kInt64:
      return fitting<To>(load_number<int64_t>(at));
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<ValueType> parse_value_type(uint32_t id) {
  if (id >= kTypes.size()) return std::nullopt;
  return static_cast<ValueType>(id);
}

std::string_view value_type_name(ValueType type) {
  return row_of(type).name;
}

std::optional<uint64_t> fixed_size_bytes(ValueType type) {
  const uint64_t size_bytes = row_of(type).size_bytes;
  if (size_bytes == 0) return std::nullopt;
  return size_bytes;
}

std::optional<uint64_t> load_unsigned(ValueType type, const std::byte* at) {
  return load_integer<uint64_t>(type, at);
}

std::optional<int64_t> load_signed(ValueType type, const std::byte* at) {
  return load_integer<int64_t>(type, at);
}

std::optional<double> load_float(ValueType type, const std::byte* at) {
  if (type == ValueType::kFloat32) return double{load_number<float>(at)};
  if (type == ValueType::kFloat64) return load_number<double>(at);
  return std::nullopt;
}

std::string printable(std::string_view text) {
  constexpr size_t kShownBytes = 80;
  std::string out = "'";
  for (const char c : text.substr(0, kShownBytes)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte >= 0x7f || c == '\'' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  if (text.size() > kShownBytes) out += "...";
  return out + "'";
}

}  // namespace kvasir::gguf
