// Single tokens for people to read, and where each stands in the text of many.
// Thread: one owner. Allocates: every call.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "text/detokenizer.h"

namespace kvasir::api {

// The bytes of one token; those of its name for a control token, which stands for no text.
// Requires: a token of the vocabulary. Valid as long as the tokenizer.
std::string_view token_bytes_or_name(const text::Tokenizer& tokenizer, TokenId token);

// Counts characters while tokens come, exactly as the text that is made of them has them.
class CharacterCounter {
 public:
  // See text::Detokenizer.
  CharacterCounter(const text::Tokenizer& tokenizer, bool at_start)
      : detokenizer_(tokenizer, at_start) {}

  void push(TokenId token) { count(detokenizer_.push(token)); }
  // The text ends here; whatever follows begins a text of its own.
  void finish() { count(detokenizer_.finish()); }
  // Complete characters so far: the index of the one that the next token begins or continues.
  size_t characters() const { return characters_; }

 private:
  void count(std::string_view text);

  text::Detokenizer detokenizer_;
  size_t characters_ = 0;
};

}  // namespace kvasir::api
