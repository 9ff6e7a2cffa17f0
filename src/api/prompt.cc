#include "api/prompt.h"

namespace kvasir::api {

base::Result<std::vector<TokenId>> encode_prompt(const text::Tokenizer& tokenizer,
                                                 std::string_view text) {
  std::vector<TokenId> tokens;
  const text::Vocab& vocab = tokenizer.vocab();
  if (vocab.add_bos && vocab.bos) tokens.push_back(*vocab.bos);
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids,
                   tokenizer.encode(text, text::SpecialText::kPlain));
  tokens.insert(tokens.end(), ids.begin(), ids.end());
  return tokens;
}

}  // namespace kvasir::api
