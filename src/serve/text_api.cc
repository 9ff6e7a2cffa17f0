#include "serve/text_api.h"

#include <fmt/format.h>

#include <utility>

#include "api/prompt.h"
#include "api/text_tools.h"
#include "api/token_text.h"
#include "serve/messages.h"
#include "serve/parameters.h"
#include "serve/unsupported.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// A piece of text as llama.cpp writes it: bytes where it is no UTF-8.
json::value piece_json(std::string_view bytes) {
  if (!broken_utf8_at(bytes)) return json::value(bytes);
  json::array numbers;
  for (const char byte : bytes) numbers.push_back(static_cast<uint8_t>(byte));
  return numbers;
}

// Longer than any context, but not so long that one text keeps all others waiting.
ApiStatus check_bytes(std::string_view text, std::string_view param) {
  constexpr size_t kTextBytesMax = size_t{2} << 20;
  if (text.size() <= kTextBytesMax) return {};
  return std::unexpected(
      ApiError{.status = 413,
               .message = fmt::format("'{}' has {} bytes; give at most {} at a time.", param,
                                      text.size(), kTextBytesMax),
               .param = std::string(param)});
}

ApiResult<std::vector<TokenId>> encode(const ModelInfo& model, std::string_view text,
                                       text::SpecialText special) {
  auto tokens = model.tokenizer->encode(text, special);
  if (tokens) return *std::move(tokens);
  return std::unexpected(ApiError{.message = std::move(tokens.error().message)});
}

ApiResult<json::object> tokenize_as_llama(const ModelInfo& model, const json::object& body) {
  ASSIGN_OR_RETURN(const std::string content, read_required_string(body, "content", "content"));
  RETURN_IF_ERROR(check_bytes(content, "content"));
  ASSIGN_OR_RETURN(const bool add_special, read_boolean_or(body, "add_special", false));
  ASSIGN_OR_RETURN(const bool parse_special, read_boolean_or(body, "parse_special", true));
  ASSIGN_OR_RETURN(const bool with_pieces, read_boolean_or(body, "with_pieces", false));
  const text::Vocab& vocab = model.tokenizer->vocab();
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens,
                   encode(model, content,
                          parse_special ? text::SpecialText::kParse : text::SpecialText::kPlain));
  if (add_special && vocab.add_bos && vocab.bos) tokens.insert(tokens.begin(), *vocab.bos);
  if (add_special && vocab.add_eos && vocab.eos) tokens.push_back(*vocab.eos);
  json::array entries;
  for (const TokenId token : tokens) {
    if (with_pieces) {
      const std::string_view bytes = api::token_bytes_or_name(*model.tokenizer, token);
      entries.push_back({{"id", token}, {"piece", piece_json(bytes)}});
    } else {
      entries.push_back(token);
    }
  }
  return json::object{{"tokens", std::move(entries)}};
}

// What a completion of the same prompt or messages would compute.
ApiResult<std::vector<TokenId>> prompt_tokens(const ModelInfo& model, const json::object& body) {
  if (find(body, "messages") != nullptr) {
    ASSIGN_OR_RETURN(const auto messages, read_messages(model, body));
    ASSIGN_OR_RETURN(const bool opens, read_boolean_or(body, "add_generation_prompt", true));
    ASSIGN_OR_RETURN(text::RenderedChat chat, render_chat(model, messages, opens));
    return std::move(chat.ids);
  }
  ASSIGN_OR_RETURN(const std::string prompt, read_required_string(body, "prompt", "prompt"));
  RETURN_IF_ERROR(check_bytes(prompt, "prompt"));
  ASSIGN_OR_RETURN(const bool add_special, read_boolean_or(body, "add_special_tokens", true));
  if (!add_special) return encode(model, prompt, text::SpecialText::kPlain);
  auto tokens = api::encode_prompt(*model.tokenizer, prompt);
  if (tokens) return *std::move(tokens);
  return invalid("prompt", std::move(tokens.error().message));
}

ApiResult<json::object> tokenize_as_vllm(const ModelInfo& model, const json::object& body) {
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, prompt_tokens(model, body));
  ASSIGN_OR_RETURN(const bool with_strings, read_boolean_or(body, "return_token_strs", false));
  json::object answer{{"count", tokens.size()},
                      {"max_model_len", model.tokens_max},
                      {"tokens", json::array(tokens.begin(), tokens.end())},
                      {"token_strs", nullptr}};
  if (!with_strings) return answer;
  json::array strings;
  for (const TokenId token : tokens) {
    strings.emplace_back(replace_broken(api::token_bytes_or_name(*model.tokenizer, token)));
  }
  answer["token_strs"] = std::move(strings);
  return answer;
}

ApiResult<json::object> tokenize(const ModelInfo& model, const http::Request& request) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  int given = 0;
  for (const char* name : {"content", "prompt", "messages"}) {
    if (find(body, name) != nullptr) ++given;
  }
  if (given != 1) {
    return invalid("content", "Give exactly one of 'content', 'prompt' and 'messages'.");
  }
  return find(body, "content") != nullptr ? tokenize_as_llama(model, body)
                                          : tokenize_as_vllm(model, body);
}

ApiResult<json::object> detokenize(const ModelInfo& model, const http::Request& request) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  const json::value* value = find(body, "tokens");
  if (value == nullptr) return invalid("tokens", "'tokens' is missing; give a list of token ids.");
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                   read_tokens(*value, "tokens", model.vocab_size()));
  const auto text = api::detokenize_checked(*model.tokenizer, tokens);
  if (!text) return invalid("tokens", text.error().message);
  return json::object{{"content", *text}, {"prompt", *text}};
}

ApiResult<json::object> render(const ModelInfo& model, const http::Request& request) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  RETURN_IF_ERROR(check_supported(body, Dialect::kChat));
  ASSIGN_OR_RETURN(const Parameters parameters,
                   read_parameters(body, Dialect::kChat, model.vocab_size()));
  ASSIGN_OR_RETURN(const auto messages, read_messages(model, body));
  ASSIGN_OR_RETURN(const text::RenderedChat chat,
                   render_chat(model, messages, parameters.add_generation_prompt));
  return json::object{{"token_ids", json::array(chat.ids.begin(), chat.ids.end())},
                      {"text", chat.text}};
}

http::Response response_of(const ApiResult<json::object>& result) {
  if (!result) return error_response(result.error());
  return {.status = 200, .body = json::serialize(*result)};
}

}  // namespace

http::Response tokenize_response(const ModelInfo& model, const http::Request& request) {
  return response_of(tokenize(model, request));
}

http::Response detokenize_response(const ModelInfo& model, const http::Request& request) {
  return response_of(detokenize(model, request));
}

http::Response render_response(const ModelInfo& model, const http::Request& request) {
  return response_of(render(model, request));
}

json::object tokenizer_json(const ModelInfo& model) {
  const text::Vocab& vocab = model.tokenizer->vocab();
  const auto text_of = [&](const std::optional<TokenId>& token) {
    if (!token) return json::value(nullptr);
    return json::value(replace_broken(api::token_bytes_or_name(*model.tokenizer, *token)));
  };
  return {{"tokenizer_class", vocab.model == text::VocabModel::kBpe ? "bpe" : "spm"},
          {"bos_token", text_of(vocab.bos)},
          {"eos_token", text_of(vocab.eos)},
          {"unk_token", text_of(vocab.unknown)},
          {"add_bos_token", vocab.add_bos},
          {"model_max_length", model.tokens_max}};
}

json::object models_json(const ModelInfo& model) {
  json::object entry{{"id", model.id},
                     {"object", "model"},
                     {"created", model.created_s},
                     {"owned_by", "kvasir"},
                     {"root", model.id},
                     {"parent", nullptr},
                     {"max_model_len", model.tokens_max},
                     {"meta", model.meta}};
  json::object list{{"object", "list"}};
  list["data"].emplace_array().push_back(std::move(entry));
  return list;
}

}  // namespace kvasir::serve
