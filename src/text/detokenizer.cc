#include "text/detokenizer.h"

#include <cstdint>
#include <optional>
#include <string_view>

namespace kvasir::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

struct ByteRange {
  uint8_t low;
  uint8_t high;
};

// How a character goes on after its first byte. The narrowed second ranges are what excludes
// overlong forms (E0, F0), surrogates (ED) and values above U+10FFFF (F4).
struct Continuation {
  size_t size;       // of the whole character
  ByteRange second;  // the later bytes are 80..BF
};

std::optional<Continuation> continuation(uint8_t lead) {
  if (lead < 0x80) return Continuation{1, {}};
  if (lead >= 0xC2 && lead <= 0xDF) return Continuation{2, {0x80, 0xBF}};
  if (lead == 0xE0) return Continuation{3, {0xA0, 0xBF}};
  if (lead == 0xED) return Continuation{3, {0x80, 0x9F}};
  if (lead >= 0xE1 && lead <= 0xEF) return Continuation{3, {0x80, 0xBF}};
  if (lead == 0xF0) return Continuation{4, {0x90, 0xBF}};
  if (lead >= 0xF1 && lead <= 0xF3) return Continuation{4, {0x80, 0xBF}};
  if (lead == 0xF4) return Continuation{4, {0x80, 0x8F}};
  return std::nullopt;
}

enum class Outcome : uint8_t { kCharacter, kBroken, kUnfinished };

struct Scan {
  Outcome outcome;
  size_t size;  // kBroken: the maximal subpart, which becomes one U+FFFD
};

// The first character of `bytes`. Requires: not empty.
Scan scan_character(std::string_view bytes) {
  const std::optional<Continuation> rest = continuation(static_cast<uint8_t>(bytes[0]));
  if (!rest) return {Outcome::kBroken, 1};
  for (size_t i = 1; i < rest->size; ++i) {
    if (i == bytes.size()) return {Outcome::kUnfinished, i};
    const ByteRange range = i == 1 ? rest->second : ByteRange{0x80, 0xBF};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    if (byte < range.low || byte > range.high) return {Outcome::kBroken, i};
  }
  return {Outcome::kCharacter, rest->size};
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool at_start)
    : tokenizer_(&tokenizer),
      drop_space_(at_start && tokenizer.vocab().model == VocabModel::kSpm &&
                  tokenizer.vocab().add_space_prefix) {}

std::string Detokenizer::push(TokenId token) {
  std::string_view bytes = tokenizer_->token_bytes(token);
  if (drop_space_ && !bytes.empty()) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    drop_space_ = false;
  }
  pending_ += bytes;

  std::string text;
  size_t done = 0;
  while (done < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(done);
    const Scan scan = scan_character(rest);
    if (scan.outcome == Outcome::kUnfinished) break;
    text += scan.outcome == Outcome::kCharacter ? rest.substr(0, scan.size) : kReplacement;
    done += scan.size;
  }
  pending_.erase(0, done);
  return text;
}

std::string Detokenizer::finish() {
  // What is held back is a prefix of one character, hence one maximal subpart.
  const bool is_empty = pending_.empty();
  pending_.clear();
  return std::string(is_empty ? std::string_view() : kReplacement);
}

std::string detokenize(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  Detokenizer detokenizer(tokenizer, true);
  std::string text;
  for (const TokenId token : tokens) text += detokenizer.push(token);
  return text + detokenizer.finish();
}

}  // namespace kvasir::text
