#include "serve/logprobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "api/token_text.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// JSON has no infinities: what can not happen has this, as OpenAI has it.
constexpr double kImpossible = -9999.0;

double finite(float logprob) {
  return logprob >= static_cast<float>(kImpossible) ? static_cast<double>(logprob) : kImpossible;
}

// "token", "logprob" and "bytes", which chat and llama.cpp have in common.
void describe(json::object& entry, std::string_view bytes, float logprob) {
  json::array numbers;
  numbers.reserve(bytes.size());
  for (const char byte : bytes) numbers.push_back(static_cast<uint8_t>(byte));
  entry["token"] = replace_broken(bytes);
  entry["logprob"] = finite(logprob);
  entry["bytes"] = std::move(numbers);
}

json::object describe_all(const text::Tokenizer& tokenizer, TokenId token,
                          const api::TokenDetail& detail, bool with_ids) {
  const auto one = [&](TokenId id, float logprob) {
    json::object entry;
    if (with_ids) entry["id"] = id;
    describe(entry, api::token_bytes_or_name(tokenizer, id), logprob);
    return entry;
  };
  json::object entry = one(token, detail.logprob);
  json::array top;
  top.reserve(detail.top.size());
  for (const sample::TokenLogprob& other : detail.top) {
    top.push_back(one(other.token, other.logprob));
  }
  entry["top_logprobs"] = std::move(top);
  return entry;
}

std::string token_key(const text::Tokenizer& tokenizer, TokenId token) {
  const std::string_view bytes = api::token_bytes_or_name(tokenizer, token);
  if (!broken_utf8_at(bytes)) return std::string(bytes);
  std::string key = "bytes:";
  for (const char byte : bytes) {
    fmt::format_to(std::back_inserter(key), "\\x{:02x}", static_cast<uint8_t>(byte));
  }
  return key;
}

}  // namespace

json::object chat_logprob(const text::Tokenizer& tokenizer, TokenId token,
                          const api::TokenDetail& detail) {
  return describe_all(tokenizer, token, detail, /*with_ids=*/false);
}

json::object llama_logprob(const text::Tokenizer& tokenizer, TokenId token,
                           const api::TokenDetail& detail) {
  return describe_all(tokenizer, token, detail, /*with_ids=*/true);
}

void CompletionLogprobs::add(TokenId token, const api::TokenDetail* detail, size_t text_offset) {
  std::string key = token_key(*tokenizer_, token);
  text_offset_.push_back(text_offset);
  if (detail == nullptr) {
    token_logprobs_.push_back(nullptr);
    top_logprobs_.push_back(nullptr);
  } else {
    json::object top;
    for (const sample::TokenLogprob& other : detail->top) {
      top.emplace(token_key(*tokenizer_, other.token), finite(other.logprob));
    }
    // The token itself is always there, also if others were likelier.
    top.emplace(key, finite(detail->logprob));
    token_logprobs_.push_back(finite(detail->logprob));
    top_logprobs_.push_back(std::move(top));
  }
  tokens_.emplace_back(std::move(key));
}

json::object CompletionLogprobs::take() {
  return {{"tokens", std::move(tokens_)},
          {"token_logprobs", std::move(token_logprobs_)},
          {"top_logprobs", std::move(top_logprobs_)},
          {"text_offset", std::move(text_offset_)}};
}

}  // namespace kvasir::serve
