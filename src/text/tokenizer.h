// Text to token ids, by the `tokenizers` crate configured from the vocabulary.
//
// Thread: immutable after create(); encode and token_bytes may be called from any thread.
// Allocates: every call.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/vocab.h"

namespace kvasir::text {

// Whether the text of a control token ("<|im_end|>") becomes that token. Text that a user wrote
// is always kPlain, so that it can not forge the frame of a conversation.
enum class SpecialText : uint8_t { kPlain, kParse };

class Tokenizer {
 public:
  // Error: a pre-tokenizer this build does not know (named), a vocabulary that contradicts itself.
  static base::Result<Tokenizer> create(Vocab vocab);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Nothing is added: no BOS, no EOS. Error: `text` is not UTF-8.
  base::Result<std::vector<TokenId>> encode(std::string_view text, SpecialText special) const;

  // The bytes a token stands for in running text; empty for control tokens. May be part of a
  // UTF-8 character. Requires: 0 <= token < vocab().tokens.size().
  std::string_view token_bytes(TokenId token) const;

  const Vocab& vocab() const { return vocab_; }

 private:
  friend class ChatTemplate;  // hands handle_ to Rust
  struct Handle;              // the Rust object
  Tokenizer(Vocab vocab, std::unique_ptr<Handle> handle);

  Vocab vocab_;
  std::unique_ptr<Handle> handle_;
  std::string bytes_;                   // all tokens' bytes, one after another
  std::vector<uint32_t> byte_offsets_;  // [tokens + 1] into bytes_
};

}  // namespace kvasir::text
