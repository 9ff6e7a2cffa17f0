#include "serve/unsupported.h"

#include <fmt/format.h>

#include <utility>

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// Whether a value asks for the feature.
using Asks = bool (*)(const json::value& value);

bool always(const json::value&) {
  return true;
}

// All but the ways to say no: false, 0 and what is empty.
bool unless_empty(const json::value& value) {
  if (const bool* flag = value.if_bool()) return *flag;
  if (const int64_t* number = value.if_int64()) return *number != 0;
  if (const json::array* list = value.if_array()) return !list->empty();
  if (const json::object* object = value.if_object()) return !object->empty();
  if (const json::string* text = value.if_string()) return !text->empty();
  return true;
}

bool unless_none_or_auto(const json::value& value) {
  const json::string* choice = value.if_string();
  return choice == nullptr || (*choice != "none" && *choice != "auto");
}

bool unless_text_format(const json::value& value) {
  const json::object* format = value.if_object();
  const json::value* type = format == nullptr ? nullptr : find(*format, "type");
  return type == nullptr || *type != json::value("text");
}

bool unless_text_only(const json::value& value) {
  const json::array* list = value.if_array();
  return list == nullptr || list->size() != 1 || list->front() != json::value("text");
}

struct Unsupported {
  std::string_view name;
  uint8_t dialects = 0;
  Asks asks = nullptr;
  std::string_view feature;
};

constexpr uint8_t kChat = static_cast<uint8_t>(Dialect::kChat);
constexpr uint8_t kCompletion = static_cast<uint8_t>(Dialect::kCompletion);
constexpr uint8_t kLlama = static_cast<uint8_t>(Dialect::kLlama);
constexpr uint8_t kOpenAi = kChat + kCompletion;
constexpr uint8_t kAll = kOpenAi + kLlama;

constexpr Unsupported kUnsupported[] = {
    {"tools", kOpenAi, unless_empty, "calls of tools"},
    {"tool_choice", kOpenAi, unless_none_or_auto, "calls of tools"},
    {"functions", kOpenAi, unless_empty, "calls of functions"},
    {"function_call", kOpenAi, unless_none_or_auto, "calls of functions"},
    {"response_format", kAll, unless_text_format, "constrained output"},
    {"structured_outputs", kOpenAi, unless_empty, "constrained output"},
    {"guided_json", kOpenAi, unless_empty, "constrained output"},
    {"guided_regex", kOpenAi, unless_empty, "constrained output"},
    {"guided_choice", kOpenAi, unless_empty, "constrained output"},
    {"guided_grammar", kOpenAi, unless_empty, "constrained output"},
    {"grammar", kAll, unless_empty, "constrained output"},
    {"json_schema", kLlama, always, "constrained output"},
    {"bad_words", kOpenAi, unless_empty, "forbidden words"},
    {"allowed_token_ids", kOpenAi, always, "a list of allowed tokens"},
    {"modalities", kOpenAi, unless_text_only, "input or output but text"},
    {"audio", kOpenAi, always, "input or output but text"},
    {"image_data", kLlama, unless_empty, "input or output but text"},
    {"web_search_options", kOpenAi, always, "search in the web"},
    {"prediction", kOpenAi, always, "predicted output"},
    {"prompt_logprobs", kOpenAi, always, "this field; use echo and logprobs of /v1/completions"},
    {"truncate_prompt_tokens", kOpenAi, always, "truncation of prompts"},
    {"chat_template", kChat, unless_empty, "a template from the request"},
    {"continue_final_message", kChat, unless_empty, "continuation of a message"},
    {"post_sampling_probs", kLlama, unless_empty, "probabilities after sampling"},
    {"lora", kLlama, unless_empty, "adapters"},
};

}  // namespace

ApiStatus check_supported(const json::object& body, Dialect dialect) {
  for (const Unsupported& field : kUnsupported) {
    if ((field.dialects & static_cast<uint8_t>(dialect)) == 0) continue;
    const json::value* value = find(body, field.name);
    if (value != nullptr && field.asks(*value)) {
      return unsupported(std::string(field.name), field.feature);
    }
  }
  return {};
}

std::unexpected<ApiError> unsupported(std::string param, std::string_view feature) {
  std::string message =
      fmt::format("'{}' is not supported: this server has no {}; leave it out.", param, feature);
  return std::unexpected(ApiError{
      .message = std::move(message), .param = std::move(param), .code = "unsupported_parameter"});
}

}  // namespace kvasir::serve
