#include "serve/text_api.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/testing.h"

namespace kvasir::serve {
namespace {

using testing::json_of;
using testing::request_of;
using testing::TestModel;

class TextApi : public ::testing::Test {
 protected:
  using Answer = http::Response (*)(const ModelInfo&, const http::Request&);

  boost::json::value answer(Answer endpoint, const std::string& body) {
    const http::Response response = endpoint(model_->info, request_of(body));
    EXPECT_EQ(response.status, 200U) << body << response.body;
    EXPECT_EQ(response.content_type, "application/json");
    return json_of(response.body);
  }
  boost::json::value ids(std::string_view text,
                         text::SpecialText special = text::SpecialText::kPlain) {
    return boost::json::value_from(model_->encode(text, special));
  }

  std::unique_ptr<TestModel> model_ = testing::tiny_model();
};

TEST_F(TextApi, tokenizes_as_llama_cpp_does) {
  EXPECT_EQ(answer(tokenize_response, R"({"content": "hi"})"),
            (boost::json::object{{"tokens", ids("hi")}}));
  EXPECT_EQ(answer(tokenize_response, R"({"content": "<|im_end|>"})"),
            json_of(R"({"tokens": [2]})"));
  EXPECT_EQ(answer(tokenize_response, R"({"content": "<|im_end|>", "parse_special": false})"),
            (boost::json::object{{"tokens", ids("<|im_end|>")}}));
  EXPECT_EQ(answer(tokenize_response, R"({"content": ""})"), json_of(R"({"tokens": []})"));
}

TEST_F(TextApi, pieces_that_are_no_text_are_bytes) {
  const auto pieces =
      answer(tokenize_response, R"({"content": "a\u0416<|im_end|>", "with_pieces": true})");
  const boost::json::array& tokens = pieces.at("tokens").as_array();
  ASSERT_GE(tokens.size(), 3U);
  EXPECT_EQ(tokens[0].at("piece"), "a");
  EXPECT_EQ(tokens[0].at("id"), ids("a").as_array()[0]);
  EXPECT_EQ(tokens[1].at("piece"), json_of("[208]"));
  EXPECT_EQ(tokens[2].at("piece"), json_of("[150]"));
  EXPECT_EQ(tokens[3].at("piece"), "<|im_end|>");
}

TEST_F(TextApi, special_tokens_are_added_where_the_model_asks_for_them) {
  text::Vocab vocab = testing::tiny_vocab();
  vocab.bos = 0;
  vocab.eos = 2;
  vocab.add_bos = true;
  vocab.add_eos = true;
  model_ = testing::make_model(std::move(vocab));
  EXPECT_EQ(answer(tokenize_response, R"({"content": "", "add_special": true})"),
            json_of(R"({"tokens": [0, 2]})"));
  EXPECT_EQ(answer(tokenize_response, R"({"prompt": ""})").at("tokens"), json_of("[0]"));
  EXPECT_EQ(answer(tokenize_response, R"({"prompt": "", "add_special_tokens": false})").at("count"),
            0);
}

TEST_F(TextApi, tokenizes_as_vllm_does) {
  const auto count = model_->encode("hi").size();
  EXPECT_EQ(answer(tokenize_response, R"({"model": "tiny", "prompt": "hi"})"),
            (boost::json::object{{"count", count},
                                 {"max_model_len", 512},
                                 {"tokens", ids("hi")},
                                 {"token_strs", nullptr}}));
  const auto strings = answer(tokenize_response, R"({"prompt": "a", "return_token_strs": true})");
  EXPECT_EQ(strings.at("token_strs"), json_of(R"(["a"])"));
}

TEST_F(TextApi, tokenizes_and_renders_the_prompt_that_a_chat_has) {
  const std::string body = R"({"messages": [{"role": "user", "content": "<|im_end|>"}]})";
  const auto call = parse_chat(model_->info, request_of(body));
  ASSERT_TRUE(call.has_value());
  const auto prompt = boost::json::value_from((*call)->requests()[0].prompt);
  EXPECT_EQ(answer(tokenize_response, body).at("tokens"), prompt);
  const auto rendered = answer(render_response, body);
  EXPECT_EQ(rendered.at("token_ids"), prompt);
  EXPECT_EQ(rendered.at("text"), "<|im_start|>user\n<|im_end|><|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(TextApi, detokenizes_for_both_kinds_of_clients) {
  boost::json::object body{{"tokens", ids("so it is \xC3\xA9")}};
  const auto text = answer(detokenize_response, boost::json::serialize(body));
  EXPECT_EQ(text.at("content"), "so it is \xC3\xA9");
  EXPECT_EQ(text.at("prompt"), text.at("content"));
  const auto half = model_->encode("\xC3\xA9").front();
  body["tokens"] = boost::json::value_from(std::vector<TokenId>{half});
  EXPECT_EQ(answer(detokenize_response, boost::json::serialize(body)).at("content"),
            "\xEF\xBF\xBD");
}

TEST_F(TextApi, lists_the_model) {
  model_->info.meta = {{"n_vocab", 291}};
  EXPECT_EQ(boost::json::value(models_json(model_->info)),
            json_of(R"({"object": "list", "data": [{"id": "tiny", "object": "model",
                        "created": 1700000000, "owned_by": "kvasir", "root": "tiny",
                        "parent": null, "max_model_len": 512, "meta": {"n_vocab": 291}}]})"));
}

TEST(ApiError, has_openais_shape) {
  EXPECT_EQ(json_of(error_body({.message = "m \"q\"", .param = "p", .code = "c"})),
            json_of(R"({"error": {"message": "m \"q\"", "type": "invalid_request_error",
                                  "param": "p", "code": "c"}})"));
  const auto type_of = [](unsigned status) {
    return json_of(error_body({.status = status, .message = "m"})).at("error").at("type");
  };
  EXPECT_EQ(type_of(401), "authentication_error");
  EXPECT_EQ(type_of(404), "invalid_request_error");
  EXPECT_EQ(type_of(429), "rate_limit_error");
  EXPECT_EQ(type_of(503), "server_error");
  EXPECT_TRUE(json_of(error_body({.message = "m"})).at("error").at("param").is_null());
}

TEST(ApiError, says_when_to_come_again) {
  const http::Response later = error_response({.status = 429, .message = "m", .retry_after_s = 7});
  EXPECT_EQ(later.status, 429U);
  ASSERT_EQ(later.fields.size(), 1U);
  EXPECT_EQ(later.fields[0], (std::pair<std::string, std::string>("Retry-After", "7")));
  EXPECT_TRUE(error_response({.status = 400, .message = "m"}).fields.empty());
}

}  // namespace
}  // namespace kvasir::serve
