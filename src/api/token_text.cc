#include "api/token_text.h"

#include <algorithm>

namespace kvasir::api {

std::string_view token_bytes_or_name(const text::Tokenizer& tokenizer, TokenId token) {
  const std::string_view bytes = tokenizer.token_bytes(token);
  return bytes.empty() ? tokenizer.vocab().tokens[static_cast<size_t>(token)] : bytes;
}

void CharacterCounter::count(std::string_view text) {
  // Detokenizers write UTF-8: every byte but 10xxxxxx begins a character.
  characters_ += static_cast<size_t>(std::ranges::count_if(
      text, [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) != 0x80U; }));
}

}  // namespace kvasir::api
