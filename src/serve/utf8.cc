#include "serve/utf8.h"

#include <algorithm>
#include <cstdint>

namespace kvasir::serve {
namespace {

// Bytes of the character that begins with `lead`; 0: none does. `low` and `high` bound the second
// byte: that is where overlong forms, surrogates and too large values show.
struct Shape {
  size_t size = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
};

Shape shape_of(uint8_t lead) {
  if (lead < 0x80) return {.size = 1};
  if (lead < 0xC2) return {};
  if (lead < 0xE0) return {.size = 2};
  if (lead < 0xF0) {
    return {.size = 3,
            .low = static_cast<uint8_t>(lead == 0xE0 ? 0xA0 : 0x80),
            .high = static_cast<uint8_t>(lead == 0xED ? 0x9F : 0xBF)};
  }
  if (lead > 0xF4) return {};
  return {.size = 4,
          .low = static_cast<uint8_t>(lead == 0xF0 ? 0x90 : 0x80),
          .high = static_cast<uint8_t>(lead == 0xF4 ? 0x8F : 0xBF)};
}

bool is_continuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

}  // namespace

std::optional<size_t> broken_utf8_at(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    const Shape shape = shape_of(static_cast<uint8_t>(text[at]));
    if (shape.size == 0 || shape.size > text.size() - at) return at;
    if (shape.size > 1) {
      const auto second = static_cast<uint8_t>(text[at + 1]);
      if (second < shape.low || second > shape.high) return at;
    }
    for (size_t i = 2; i < shape.size; ++i) {
      if (!is_continuation(text[at + i])) return at;
    }
    at += shape.size;
  }
  return std::nullopt;
}

size_t count_characters(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return !is_continuation(byte); }));
}

std::string replace_broken(std::string_view text) {
  std::string mended;
  while (const auto broken = broken_utf8_at(text)) {
    mended += text.substr(0, *broken);
    mended += "\xEF\xBF\xBD";
    text.remove_prefix(*broken + 1);
  }
  mended += text;
  return mended;
}

}  // namespace kvasir::serve
