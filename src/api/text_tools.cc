#include "api/text_tools.h"

#include <fmt/format.h>

#include <utility>

#include "load/read_vocab.h"
#include "text/detokenizer.h"

namespace kvasir::api {

base::Result<text::Tokenizer> open_tokenizer(const std::string& path) {
  ASSIGN_OR_RETURN(const gguf::GgufFile file, gguf::GgufFile::open(path));
  ASSIGN_OR_RETURN(text::Vocab vocab, load::read_vocab(file));
  return text::Tokenizer::create(std::move(vocab));
}

base::Result<ChatTools> open_chat_tools(const std::string& path) {
  ASSIGN_OR_RETURN(const gguf::GgufFile file, gguf::GgufFile::open(path));
  ASSIGN_OR_RETURN(const auto source, file.get_string("tokenizer.chat_template"));
  if (!source) {
    return base::bad_input(
        fmt::format("{}: key 'tokenizer.chat_template' is missing; use a chat model", path));
  }
  ASSIGN_OR_RETURN(text::Vocab vocab, load::read_vocab(file));
  ASSIGN_OR_RETURN(text::ChatTemplate chat_template, text::ChatTemplate::create(*source, vocab));
  ASSIGN_OR_RETURN(text::Tokenizer tokenizer, text::Tokenizer::create(std::move(vocab)));
  return ChatTools{std::move(tokenizer), std::move(chat_template)};
}

base::Result<std::string> detokenize_checked(const text::Tokenizer& tokenizer,
                                             const std::vector<TokenId>& tokens) {
  const size_t vocab_size = tokenizer.vocab().tokens.size();
  for (const TokenId token : tokens) {
    if (token >= 0 && static_cast<size_t>(token) < vocab_size) continue;
    return base::bad_input(fmt::format("token id {} is outside the vocabulary; ids are 0 to {}",
                                       token, vocab_size - 1));
  }
  return text::detokenize(tokenizer, tokens);
}

}  // namespace kvasir::api
