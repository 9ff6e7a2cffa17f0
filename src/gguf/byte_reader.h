// A cursor over bytes from outside that can not leave them. Little endian, as the format is.
//
// Thread: one owner. Allocates: never. Invariant: position() <= the size of the bytes.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>

namespace kvasir::gguf {

static_assert(std::endian::native == std::endian::little, "stored numbers are read in place");

// Requires: at least sizeof(T) bytes at `at`.
template <typename T>
  requires std::is_arithmetic_v<T>
T load_number(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

inline std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t remaining() const { return bytes_.size() - position_; }

  // nullopt: fewer bytes remain, and the position stays.
  std::optional<std::span<const std::byte>> take(uint64_t size_bytes) {
    if (size_bytes > remaining()) return std::nullopt;
    const auto taken = bytes_.subspan(position_, size_bytes);
    position_ += size_bytes;
    return taken;
  }

  template <typename T>
  std::optional<T> number() {
    const auto taken = take(sizeof(T));
    if (!taken) return std::nullopt;
    return load_number<T>(taken->data());
  }

  // A u64 length and that many bytes; the position stays when they are not all there.
  std::optional<std::string_view> string() {
    const uint64_t start = position_;
    if (const auto size_bytes = number<uint64_t>()) {
      if (const auto taken = take(*size_bytes)) return as_text(*taken);
    }
    position_ = start;
    return std::nullopt;
  }

 private:
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

}  // namespace kvasir::gguf
