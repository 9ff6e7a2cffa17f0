// Log probabilities as each dialect writes them. Whatever bytes a token has, the strings are UTF-8.
// Thread: one owner. Allocates: every call.
#pragma once

#include <boost/json.hpp>
#include <optional>

#include "api/llm.h"

namespace kvasir::serve {

// {"token", "logprob", "bytes", "top_logprobs": [...]}: OpenAI's chat.
boost::json::object chat_logprob(const text::Tokenizer& tokenizer, TokenId token,
                                 const api::TokenDetail& detail);

// The same with "id" in front: llama.cpp.
boost::json::object llama_logprob(const text::Tokenizer& tokenizer, TokenId token,
                                  const api::TokenDetail& detail);

// {"tokens", "token_logprobs", "top_logprobs", "text_offset"}: OpenAI's completions. A token of
// broken characters is written "bytes:\xe2\x80", so that no two tokens look the same.
class CompletionLogprobs {
 public:
  explicit CompletionLogprobs(const text::Tokenizer& tokenizer) : tokenizer_(&tokenizer) {}

  // nullptr: the token has no log probability, being the first of all.
  void add(TokenId token, const api::TokenDetail* detail, size_t text_offset);
  boost::json::object take();

 private:
  const text::Tokenizer* tokenizer_;
  boost::json::array tokens_;
  boost::json::array token_logprobs_;
  boost::json::array top_logprobs_;
  boost::json::array text_offset_;
};

}  // namespace kvasir::serve
