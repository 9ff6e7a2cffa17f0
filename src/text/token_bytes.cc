#include "text/token_bytes.h"

#include <array>
#include <cstdint>
#include <optional>

namespace kvasir::text {
namespace {

constexpr std::string_view kSpmSpace = "\xE2\x96\x81";  // U+2581
constexpr uint32_t kMappedLetters = 0x100 + 68;         // bytes without a printable letter: 68

constexpr bool stands_for_itself(uint32_t byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) ||
         (byte >= 174 && byte <= 255);
}

// Index: code point below kMappedLetters. Value: the byte, or -1 for a letter not in the alphabet.
constexpr std::array<int16_t, kMappedLetters> kByteOfLetter = [] {
  std::array<int16_t, kMappedLetters> table = {};
  table.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    table[stands_for_itself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return table;
}();

std::string bpe_bytes(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size(); ++i) {
    // The alphabet ends at U+0143: all of it is one or two bytes of UTF-8.
    const auto lead = static_cast<uint8_t>(token[i]);
    const bool is_pair = (lead & 0xE0) == 0xC0 && i + 1 < token.size();
    const uint32_t second = is_pair ? static_cast<uint8_t>(token[i + 1]) & 0x3Fu : 0;
    const uint32_t letter = is_pair ? (lead & 0x1Fu) << 6 | second : lead;
    const bool is_known = (is_pair || lead < 0x80) && letter < kMappedLetters;
    if (is_known && kByteOfLetter[letter] >= 0) {
      bytes += static_cast<char>(kByteOfLetter[letter]);
    } else {
      bytes.append(token.substr(i, is_pair ? 2 : 1));
    }
    i += is_pair ? 1 : 0;
  }
  return bytes;
}

std::string spm_bytes(std::string_view token) {
  std::string bytes;
  for (size_t i = 0; i < token.size();) {
    const bool is_space = token.substr(i).starts_with(kSpmSpace);
    bytes += is_space ? ' ' : token[i];
    i += is_space ? kSpmSpace.size() : 1;
  }
  return bytes;
}

std::optional<unsigned> hex_digit(char digit) {
  if (digit >= '0' && digit <= '9') return static_cast<unsigned>(digit - '0');
  if (digit >= 'A' && digit <= 'F') return static_cast<unsigned>(digit - 'A' + 10);
  return std::nullopt;
}

// Only the exact form "<0xHH>" is a byte; anything else is its own text.
std::string byte_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::string(token);
  const std::optional<unsigned> high = hex_digit(token[3]);
  const std::optional<unsigned> low = hex_digit(token[4]);
  if (!high || !low) return std::string(token);
  return std::string(1, static_cast<char>(*high << 4 | *low));
}

}  // namespace

std::string bytes_of_token(VocabModel model, TokenType type, std::string_view token) {
  switch (type) {
    case TokenType::kNormal:
      return model == VocabModel::kBpe ? bpe_bytes(token) : spm_bytes(token);
    case TokenType::kUserDefined:
      return std::string(token);
    case TokenType::kByte:
      return byte_token(token);
    case TokenType::kUnknown:
    case TokenType::kControl:
    case TokenType::kUnused:
      return {};
  }
  return {};
}

}  // namespace kvasir::text
