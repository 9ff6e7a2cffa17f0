// Whatever arrives is answered: by a call, or by an error that is a client's own.
#include <gtest/gtest.h>

#include <random>

#include "serve/testing.h"
#include "serve/text_api.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

using testing::json_of;
using testing::request_of;

using Random = std::mt19937_64;

constexpr std::string_view kBodies[] = {
    R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "a\ud83d\ude00"}]}],
        "n": 2, "temperature": 0.5, "logit_bias": {"5": -1.5}, "stop": ["x", "y"], "stream": true,
        "stream_options": {"include_usage": true}, "logprobs": true, "top_logprobs": 3})",
    R"({"prompt": [[1, 2], [3]], "echo": true, "logprobs": 2, "max_tokens": 0, "best_of": 1,
        "seed": 9223372036854775807, "cache_salt": "s", "suffix": null, "stop_token_ids": [7]})",
    R"({"prompt": ["a", "b"], "n_predict": 5, "n_probs": 2, "response_fields": ["timings/prompt_n"],
        "logit_bias": [[1, false]], "return_tokens": true, "repeat_penalty": 1.1})",
    R"({"input_prefix": "a", "input_suffix": "b", "input_extra": [{"filename": "f", "text": "t"}],
        "prompt": "c", "n_predict": 16, "cache_prompt": true})",
    R"({"content": "a", "add_special": true, "with_pieces": true, "tokens": [1, 2, 3]})"};

// Pieces that have broken parsers before.
constexpr std::string_view kPieces[] = {"{",
                                        "}",
                                        "[",
                                        "]",
                                        "\"",
                                        ",",
                                        ":",
                                        "\\",
                                        "\\ud800",
                                        "null",
                                        "-1",
                                        "1e309",
                                        "0.5",
                                        "true",
                                        "\x80",
                                        "\xF0\x9F",
                                        "{}",
                                        "[]",
                                        "\"\"",
                                        "9999999999999999999",
                                        "\"model\": \"x\","};

size_t below(Random& random, size_t end) {
  return static_cast<size_t>(random() % end);
}

std::string mutated(Random& random, std::string body) {
  for (size_t count = 1 + below(random, 4); count > 0; --count) {
    const size_t at = below(random, body.size() + 1);
    const size_t removed = below(random, 2) == 0 ? 0 : below(random, 8);
    body.replace(at, std::min(removed, body.size() - at),
                 below(random, 3) == 0 ? "" : kPieces[below(random, std::size(kPieces))]);
  }
  return body;
}

void expect_error_of_the_client(const http::Response& response) {
  EXPECT_TRUE(response.status == 400 || response.status == 404) << response.status;
  EXPECT_EQ(broken_utf8_at(response.body), std::nullopt);
  EXPECT_EQ(json_of(response.body).at("error").at("type"), "invalid_request_error");
}

void expect_answered(const ModelInfo& model, const std::string& body) {
  for (const auto parse : {parse_chat, parse_completion, parse_llama_completion, parse_infill}) {
    const auto call = parse(model, request_of(body));
    if (!call) {
      expect_error_of_the_client(error_response(call.error()));
      continue;
    }
    for (const api::GenerateRequest& request : (*call)->requests()) {
      EXPECT_TRUE(sample::check(request.sampling, static_cast<uint32_t>(model.vocab_size())));
      EXPECT_FALSE(request.prompt.empty());
      EXPECT_LE(request.prompt.size() + request.max_tokens, model.tokens_max);
    }
  }
  for (const auto answer : {tokenize_response, detokenize_response, render_response}) {
    const http::Response response = answer(model, request_of(body));
    if (response.status != 200) expect_error_of_the_client(response);
  }
}

TEST(MutatedBodies, are_answered) {
  const auto model = testing::tiny_model();
  for (const std::string_view body : kBodies) expect_answered(model->info, std::string(body));
  for (uint64_t seed = 1; seed <= 2000; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    Random random(seed);
    expect_answered(model->info,
                    mutated(random, std::string(kBodies[below(random, std::size(kBodies))])));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace kvasir::serve
