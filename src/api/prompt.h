// A text as a model's bare prompt.
// Thread: any. Allocates: every call.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// The text's tokens after BOS, where the model asks for one. Control tokens in it stay plain text.
// Error: not UTF-8.
base::Result<std::vector<TokenId>> encode_prompt(const text::Tokenizer& tokenizer,
                                                 std::string_view text);

}  // namespace kvasir::api
