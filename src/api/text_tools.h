// The text half of a model file: its tokenizer and chat template, without the weights.
// Thread: any. Allocates: yes.
#pragma once

#include <string>

#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// Error: the file can not be read, or its vocabulary is not one this build knows.
base::Result<text::Tokenizer> open_tokenizer(const std::string& path);

struct ChatTools {
  text::Tokenizer tokenizer;
  text::ChatTemplate chat_template;
};
// Error: also a file without a chat template, or with one that does not compile.
base::Result<ChatTools> open_chat_tools(const std::string& path);

// Error: the first id outside the vocabulary.
base::Result<std::string> detokenize_checked(const text::Tokenizer& tokenizer,
                                             const std::vector<TokenId>& tokens);

}  // namespace kvasir::api
