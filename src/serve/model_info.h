// What the dialects know of the model that answers.
//
// Thread: immutable once the server runs. Allocates: of() only.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>

#include "api/llm.h"
#include "serve/json_input.h"

namespace kvasir::serve {

struct ModelInfo {
  const text::Tokenizer* tokenizer = nullptr;         // never nullptr when used
  const text::ChatTemplate* chat_template = nullptr;  // nullptr: the model has none
  uint32_t tokens_max = 0;                            // longest prompt plus answer
  size_t token_bytes_max = 0;                         // of the longest token
  std::string id;                                     // the name that clients use
  int64_t created_s = 0;                              // since 1970
  std::string system_fingerprint;                     // changes whenever answers might
  boost::json::object meta;                           // for GET /v1/models
  // Fill in the middle: the text behind the gap stands before the text in front of it. So the
  // prompt's beginning stays the same while somebody types, and so do its cached keys and values.
  bool suffix_first = true;
  size_t prompts_max = 256;  // in one request
  size_t messages_max = 4096;

  // `llm` must outlive the result. Name, time and fingerprint are left to the caller.
  static ModelInfo of(const api::Llm& llm);

  size_t vocab_size() const { return tokenizer->vocab().tokens.size(); }
};

// Error: 400, a text of so many bytes can not fit the context, however well it is tokenised. Asked
// before that is done, because it takes long for long texts.
ApiStatus check_text_size(const ModelInfo& model, size_t text_bytes, std::string_view param);

// Error: 404, the body names another model. Naming none is fine.
ApiStatus check_model(const ModelInfo& model, const boost::json::object& body);

}  // namespace kvasir::serve
