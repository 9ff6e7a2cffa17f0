// Token ids back to text, one at a time, never emitting a broken UTF-8 sequence: bytes of an
// unfinished character are held back until it is complete; bytes that can not become a character
// turn into U+FFFD.
//
// Thread: one owner. Allocates: push() grows a small buffer.
#pragma once

#include <string>

#include "text/tokenizer.h"

namespace kvasir::text {

class Detokenizer {
 public:
  // `tokenizer` must outlive the detokenizer. With `at_start`, the leading space that an SPM
  // vocabulary adds to whole texts is dropped.
  Detokenizer(const Tokenizer& tokenizer, bool at_start);

  // The text that became complete with this token; may be empty.
  std::string push(TokenId token);
  // What is still held back, as U+FFFD; call once at the end.
  std::string finish();

 private:
  const Tokenizer* tokenizer_;
  bool drop_space_;
  std::string pending_;  // a prefix of one UTF-8 character
};

// A whole list at once.
std::string detokenize(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens);

}  // namespace kvasir::text
