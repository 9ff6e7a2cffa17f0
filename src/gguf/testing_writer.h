// Builds GGUF files in memory, well-formed or deliberately not. For tests and corpus generators
// only: nothing is checked.
//
// Thread: one owner. Allocates: yes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "gguf/metadata.h"

namespace kvasir::gguf::testing {

class ByteWriter {
 public:
  template <typename T>
    requires std::is_arithmetic_v<T>
  ByteWriter& number(T value) {
    const auto* bytes = reinterpret_cast<const std::byte*>(&value);
    bytes_.insert(bytes_.end(), bytes, bytes + sizeof(T));
    return *this;
  }
  ByteWriter& type(ValueType value) { return number(static_cast<uint32_t>(value)); }
  ByteWriter& string(std::string_view text) {
    number(uint64_t{text.size()});
    return append(std::as_bytes(std::span(text)));
  }
  ByteWriter& append(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  ByteWriter& pad_to(size_t alignment) {
    while (bytes_.size() % alignment != 0) bytes_.push_back(std::byte{0});
    return *this;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

template <typename T>
constexpr ValueType value_type_of() {
  if constexpr (std::is_same_v<T, uint8_t>) return ValueType::kUint8;
  if constexpr (std::is_same_v<T, int8_t>) return ValueType::kInt8;
  if constexpr (std::is_same_v<T, uint16_t>) return ValueType::kUint16;
  if constexpr (std::is_same_v<T, int16_t>) return ValueType::kInt16;
  if constexpr (std::is_same_v<T, uint32_t>) return ValueType::kUint32;
  if constexpr (std::is_same_v<T, int32_t>) return ValueType::kInt32;
  if constexpr (std::is_same_v<T, uint64_t>) return ValueType::kUint64;
  if constexpr (std::is_same_v<T, int64_t>) return ValueType::kInt64;
  if constexpr (std::is_same_v<T, float>) return ValueType::kFloat32;
  if constexpr (std::is_same_v<T, double>) return ValueType::kFloat64;
  return ValueType::kBool;
}

class GgufWriter {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;
  uint64_t extra_keys = 0;  // added to the true counts in the header
  uint64_t extra_tensors = 0;

  // Sets a key, replacing an earlier value; use raw() to write a key twice.
  template <typename T>
    requires std::is_arithmetic_v<T>
  GgufWriter& set(std::string_view key, T value) {
    return replace(key, ByteWriter().type(value_type_of<T>()).number(value));
  }
  GgufWriter& set(std::string_view key, std::string_view text) {
    return replace(key, ByteWriter().type(ValueType::kString).string(text));
  }
  GgufWriter& set(std::string_view key, const char* text) {
    return set(key, std::string_view(text));
  }
  GgufWriter& set(std::string_view key, const std::vector<std::string>& texts) {
    ByteWriter value = array_of(ValueType::kString, texts.size());
    for (const std::string& text : texts) value.string(text);
    return replace(key, value);
  }
  template <typename T>
    requires std::is_arithmetic_v<T>
  GgufWriter& set(std::string_view key, const std::vector<T>& numbers) {
    ByteWriter value = array_of(value_type_of<T>(), numbers.size());
    for (const T& number : numbers) value.number(number);
    return replace(key, value);
  }
  // A key whose type id and value are the caller's bytes.
  GgufWriter& raw(std::string_view key, const ByteWriter& type_and_value) {
    keys_.push_back({std::string(key), type_and_value.bytes()});
    return *this;
  }
  GgufWriter& erase(std::string_view key) {
    std::erase_if(keys_, [&](const auto& entry) { return entry.first == key; });
    return *this;
  }

  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;
    uint32_t type_id = 0;
    std::vector<std::byte> bytes;
    uint64_t added_offset = 0;  // makes the written offset wrong
  };
  GgufWriter& tensor(Tensor tensor) {
    erase_tensor(tensor.name);
    tensors_.push_back(std::move(tensor));
    return *this;
  }
  GgufWriter& tensor_again(Tensor tensor) {
    tensors_.push_back(std::move(tensor));
    return *this;
  }
  GgufWriter& erase_tensor(std::string_view name) {
    std::erase_if(tensors_, [&](const Tensor& tensor) { return tensor.name == name; });
    return *this;
  }

  // Tensors are padded to the alignment, except that the last one ends the file.
  std::vector<std::byte> finish() const {
    ByteWriter file;
    file.append(std::as_bytes(std::span(std::string_view("GGUF")))).number(version);
    file.number(tensors_.size() + extra_tensors).number(keys_.size() + extra_keys);
    for (const auto& [key, value] : keys_) file.string(key).append(value);
    uint64_t offset = 0;
    for (const Tensor& tensor : tensors_) {
      file.string(tensor.name).number(static_cast<uint32_t>(tensor.dimensions.size()));
      for (const uint64_t dimension : tensor.dimensions) file.number(dimension);
      file.number(tensor.type_id).number(offset + tensor.added_offset);
      offset += (tensor.bytes.size() + alignment - 1) / alignment * alignment;
    }
    for (const Tensor& tensor : tensors_) file.pad_to(alignment).append(tensor.bytes);
    return file.bytes();
  }

 private:
  static ByteWriter array_of(ValueType type, uint64_t count) {
    return ByteWriter().type(ValueType::kArray).type(type).number(count);
  }
  GgufWriter& replace(std::string_view key, const ByteWriter& value) {
    erase(key);
    return raw(key, value);
  }

  std::vector<std::pair<std::string, std::vector<std::byte>>> keys_;
  std::vector<Tensor> tensors_;
};

// `count` f32 values 0.5, 1.5, 2.5, ... as stored.
inline std::vector<std::byte> f32_bytes(size_t count) {
  ByteWriter writer;
  for (size_t i = 0; i < count; ++i) writer.number(static_cast<float>(i) + 0.5F);
  return writer.bytes();
}

}  // namespace kvasir::gguf::testing
