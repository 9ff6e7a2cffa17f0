// A small model for the tests of this folder: the tokenizer of a tiny file, a template, and tokens
// to fill in the middle, which the file has not.
// Thread: any. Allocates: yes.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "api/text_tools.h"
#include "serve/call.h"
#include "serve/model_info.h"

namespace kvasir::serve::testing {

constexpr std::string_view kTemplate =
    "{% for m in messages %}{% if m.role == 'user' and m.content == 'raise' %}"
    "{{ raise_exception('no such turn') }}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

struct TestModel {
  std::optional<text::Tokenizer> tokenizer;
  std::optional<text::ChatTemplate> chat_template;
  ModelInfo info;

  TokenId eos() const { return *tokenizer->vocab().eos; }
  std::vector<TokenId> encode(std::string_view text,
                              text::SpecialText special = text::SpecialText::kPlain) const {
    return tokenizer->encode(text, special).value();
  }
};

inline text::Vocab tiny_vocab() {
  const auto file = api::open_tokenizer(KVASIR_SOURCE_DIR "/tests/golden/tiny/llama-q4_0.gguf");
  EXPECT_TRUE(file.has_value()) << file.error().message;
  return file->vocab();
}

inline TokenId add_control_token(text::Vocab& vocab, const std::string& text) {
  vocab.tokens.push_back(text);
  vocab.types.push_back(text::TokenType::kControl);
  return static_cast<TokenId>(vocab.tokens.size() - 1);
}

inline text::Vocab with_fill_tokens(text::Vocab vocab) {
  vocab.fill.prefix = add_control_token(vocab, "<|fim_prefix|>");
  vocab.fill.suffix = add_control_token(vocab, "<|fim_suffix|>");
  vocab.fill.middle = add_control_token(vocab, "<|fim_middle|>");
  return vocab;
}

// It must stay where it is: its info points into it.
inline std::unique_ptr<TestModel> make_model(text::Vocab vocab) {
  auto model = std::make_unique<TestModel>();
  auto chat_template = text::ChatTemplate::create(kTemplate, vocab);
  EXPECT_TRUE(chat_template.has_value()) << chat_template.error().message;
  model->chat_template = *std::move(chat_template);
  auto tokenizer = text::Tokenizer::create(std::move(vocab));
  EXPECT_TRUE(tokenizer.has_value()) << tokenizer.error().message;
  model->tokenizer = *std::move(tokenizer);
  model->info.tokenizer = &*model->tokenizer;
  model->info.chat_template = &*model->chat_template;
  model->info.tokens_max = 512;
  model->info.token_bytes_max = 16;
  model->info.id = "tiny";
  model->info.created_s = 1700000000;
  model->info.system_fingerprint = "fp_test";
  return model;
}

inline std::unique_ptr<TestModel> tiny_model() {
  text::Vocab vocab = with_fill_tokens(tiny_vocab());
  vocab.add_bos = false;
  return make_model(std::move(vocab));
}

inline http::Request request_of(std::string body) {
  return {.head = {.method = "POST"}, .body = std::move(body), .id = "r1"};
}

inline boost::json::value json_of(std::string_view text) {
  boost::json::error_code error;
  boost::json::value value = boost::json::parse(text, error);
  EXPECT_FALSE(error) << error.message() << ": " << text;
  return value;
}

inline std::string text_of(const boost::json::value& value) {
  return boost::json::serialize(value);
}

// The payloads of server-sent events; fails the test where there is anything else.
inline std::vector<std::string> events_of(std::string_view stream) {
  std::vector<std::string> events;
  while (!stream.empty()) {
    const size_t end = stream.find("\n\n");
    if (!stream.starts_with("data: ") || end == std::string_view::npos) {
      ADD_FAILURE() << "no event: " << stream;
      break;
    }
    events.emplace_back(stream.substr(6, end - 6));
    EXPECT_EQ(events.back().find('\n'), std::string::npos);
    stream.remove_prefix(end + 2);
  }
  return events;
}

// An ending as the engine reports one: times and counts are round.
inline api::Ending ending_of(api::EndReason reason, uint32_t tokens) {
  api::Ending ending{.reason = reason};
  ending.stats.prompt_tokens = 10;
  ending.stats.tokens_cached = 4;
  ending.stats.tokens_generated = tokens;
  ending.stats.submitted_us = 1'000;
  ending.stats.admitted_us = 2'000;
  ending.stats.first_token_us = 8'000;
  ending.stats.finished_us = 10'000;
  return ending;
}

}  // namespace kvasir::serve::testing
