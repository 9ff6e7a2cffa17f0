#include "serve/model_info.h"

#include <fmt/format.h>

#include <algorithm>

namespace kvasir::serve {

ModelInfo ModelInfo::of(const api::Llm& llm) {
  ModelInfo info;
  info.tokenizer = &llm.tokenizer();
  info.chat_template = llm.chat_template();
  info.tokens_max = llm.sequence_tokens_limit();
  for (size_t i = 0; i < info.vocab_size(); ++i) {
    const size_t bytes = info.tokenizer->token_bytes(static_cast<TokenId>(i)).size();
    info.token_bytes_max = std::max(info.token_bytes_max, bytes);
  }
  info.meta = {{"n_vocab", llm.config().vocab_size},
               {"n_ctx", info.tokens_max},
               {"n_ctx_train", llm.config().context_length},
               {"n_embd", llm.config().embedding_length},
               {"size", llm.memory_use().weights_bytes}};
  return info;
}

ApiStatus check_text_size(const ModelInfo& model, size_t text_bytes, std::string_view param) {
  if (text_bytes <= model.token_bytes_max * model.tokens_max) return {};
  return std::unexpected(ApiError{
      .message = fmt::format("The text of {} bytes has at least {} tokens, more than the "
                             "context of {}; shorten it.",
                             text_bytes, text_bytes / model.token_bytes_max, model.tokens_max),
      .param = std::string(param),
      .code = "context_length_exceeded"});
}

ApiStatus check_model(const ModelInfo& model, const boost::json::object& body) {
  ASSIGN_OR_RETURN(const std::string name, read_string_or(body, "model", ""));
  if (name.empty() || name == model.id) return {};
  return std::unexpected(ApiError{
      .status = 404,
      .message = fmt::format("There is no such model here; this server has '{}'.", model.id),
      .param = "model",
      .code = "model_not_found"});
}

}  // namespace kvasir::serve
