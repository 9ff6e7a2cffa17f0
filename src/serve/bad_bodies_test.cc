// What clients send wrongly, to every endpoint that takes a body: each case must be refused with
// the right status and name the field.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "serve/testing.h"
#include "serve/text_api.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

using ::testing::HasSubstr;
using testing::json_of;
using ::testing::Not;
using testing::request_of;
using testing::tiny_model;

// An endpoint by its letter, with the fields it needs.
struct Endpoint {
  char letter;
  const char* needs;
  std::function<std::optional<ApiError>(const ModelInfo&, const http::Request&)> refuse;
};

template <typename T>
std::optional<ApiError> error_of(const ApiResult<T>& result) {
  return result ? std::nullopt : std::optional(result.error());
}

std::optional<ApiError> error_in(const http::Response& response) {
  if (response.status == 200) return std::nullopt;
  const boost::json::value error = json_of(response.body).at("error");
  const auto text_at = [&](const char* name) -> std::optional<std::string> {
    if (error.at(name).is_null()) return std::nullopt;
    return std::string(error.at(name).as_string());
  };
  return ApiError{.status = response.status,
                  .message = text_at("message").value_or(""),
                  .param = text_at("param"),
                  .code = text_at("code")};
}

const std::vector<Endpoint>& endpoints() {
  static const std::vector<Endpoint> all = {
      {'c', R"("messages": [{"role": "user", "content": "hi"}])",
       [](const auto& m, const auto& r) { return error_of(parse_chat(m, r)); }},
      {'t', R"("prompt": "hi")",
       [](const auto& m, const auto& r) { return error_of(parse_completion(m, r)); }},
      {'l', R"("prompt": "hi")",
       [](const auto& m, const auto& r) { return error_of(parse_llama_completion(m, r)); }},
      {'i', R"("input_prefix": "hi")",
       [](const auto& m, const auto& r) { return error_of(parse_infill(m, r)); }},
      {'r', R"("messages": [{"role": "user", "content": "hi"}])",
       [](const auto& m, const auto& r) { return error_in(render_response(m, r)); }},
      {'k', R"("content": "hi")",
       [](const auto& m, const auto& r) { return error_in(tokenize_response(m, r)); }},
      {'d', R"("tokens": [1])",
       [](const auto& m, const auto& r) { return error_in(detokenize_response(m, r)); }},
  };
  return all;
}

// The body of an endpoint with one field more, or with another value for one it needs.
std::string body_with(const Endpoint& endpoint, const std::string& field,
                      const std::string& value) {
  const std::string added = "\"" + field + "\": " + value;
  const std::string needs = endpoint.needs;
  return "{" + (needs.starts_with("\"" + field + "\"") ? added : added + ", " + needs) + "}";
}

struct BadField {
  const char* where;  // letters of endpoints
  const char* field;
  std::vector<const char*> values;
  const char* param = nullptr;  // nullptr: the field
  const char* code = "invalid_value";
  unsigned status = 400;
};

const std::vector<BadField>& bad_values() {
  static const std::vector<BadField> all = {
      {"ctlir", "temperature", {"-0.1", "2.01", "1e300", "\"1\"", "true", "[]", "{}", "-1e-9"}},
      {"ctlir", "top_p", {"0", "-1", "1.0001", "\"x\"", "false", "[1]"}},
      {"ctlir", "top_k", {"-2", "1.5", "1e10", "\"40\"", "true", "2147483648"}},
      {"ctlir", "min_p", {"-0.1", "1", "\"0\"", "{}"}},
      {"ctr", "repetition_penalty", {"0", "-1", "101", "\"1\"", "true"}},
      {"li", "repeat_penalty", {"0", "-1", "101", "\"1\"", "true"}},
      {"ctlir", "presence_penalty", {"-2.1", "2.1", "\"0\"", "[0]"}},
      {"ctlir", "frequency_penalty", {"-2.1", "2.1", "\"0\"", "[0]"}},
      {"ctlir", "seed", {"1.5", "\"1\"", "true", "9223372036854775808", "-9223372036854775809"}},
      {"ctr", "n", {"0", "17", "-1", "1.5", "16384", "\"2\"", "true", "1e18"}},
      {"t", "best_of", {"0", "17", "1.5", "\"2\""}},
      {"ctr", "max_tokens", {"-1", "1.5", "1e12", "\"5\"", "true", "[]", "2147483648"}},
      {"cr", "max_completion_tokens", {"-1", "0.5", "\"5\"", "false"}},
      {"li", "n_predict", {"-2", "1.5", "1e12", "\"5\""}},
      {"ctr", "min_tokens", {"-1", "1.5", "\"1\"", "1e12"}},
      {"cr", "logprobs", {"1", "\"true\"", "[]", "5"}},
      {"t", "logprobs", {"-1", "21", "true", "\"5\"", "1.5"}},
      {"cr", "top_logprobs", {"-1", "21", "true", "\"5\"", "3"}},
      {"li", "n_probs", {"-1", "21", "true", "\"5\""}},
      {"ctlir", "stop", {"1", "true", "{}", "\"\""}},
      {"ctlir", "stop", {"[\"a\", \"\"]", "[\"a\", 1]", "[\"a\", null]"}, "stop[1]"},
      {"ctlir", "stop_token_ids", {"1", "\"a\"", "{}"}},
      {"ctlir", "stop_token_ids", {"[1, -1]", "[1, 1000000]", "[1, 0.5]"}, "stop_token_ids[1]"},
      {"ctlir", "logit_bias", {"1", "\"a\"", "{\"a\": 1}", "{\"-1\": 1}", "{\"1000000\": 1}"}},
      {"ctlir",
       "logit_bias",
       {"{\"1\": 101}", "{\"1\": -101}", "{\"1\": \"x\"}", "{\"\": 1}", "{\"1 \": 1}",
        "{\"1\": null}", "{\"4294967297\": 1}"}},
      {"ctlir", "logit_bias", {"[1, 1]", "[[1]]", "[[1, true]]", "[[\"a\", 1]]", "[[-1, 1]]"}},
      {"ctlir", "ignore_eos", {"1", "\"true\"", "[]"}},
      {"ctr", "include_stop_str_in_output", {"1", "\"true\""}},
      {"t", "echo", {"1", "\"true\"", "[]"}},
      {"ctlir", "stream", {"1", "\"true\"", "[]"}},
      {"ctr", "stream_options", {"1", "[]", "{}", "{\"include_usage\": true}"}},
      {"ctr", "stream_options", {"{\"include_usage\": 1}"}, "stream_options.include_usage"},
      {"ctlir", "cache_prompt", {"1", "\"no\""}},
      {"ctr", "priority", {"1.5", "\"high\"", "1e10"}},
      {"ctr", "cache_salt", {"1", "\"\"", "[]"}},
      {"cr", "add_generation_prompt", {"1", "\"no\""}},
      {"li", "return_tokens", {"1", "\"no\""}},
      {"li", "response_fields", {"1", "{}"}},
      {"li", "response_fields", {"[\"a\", 1]"}, "response_fields[1]"},
  };
  return all;
}

const std::vector<BadField>& bad_inputs() {
  static const std::vector<BadField> all = {
      {"ctlirkd", "model", {"1", "true", "[]", "{}"}},
      {"ctlirkd", "model", {"\"gpt-9\"", "\"TINY\""}, nullptr, "model_not_found", 404},
      {"tl", "prompt", {"null", "1", "true", "{}", "[]"}},
      {"tl", "prompt", {"[true]", "[{}]", "[[]]", "[\"a\", 1]", "[null]"}, nullptr},
      {"tl", "prompt", {"\"\"", "[\"\"]"}},
      {"tl", "prompt", {"[1, \"a\"]", "[1, -1]", "[1, 1000000]", "[1, 2.5]", "[1, null]"}},
      {"tl", "prompt", {"[[1], [1, 1000000]]", "[[1], [true]]", "[[1], [[1]]]"}},
      {"t", "suffix", {"1", "[\"a\"]", "true"}},
      {"i", "input_prefix", {"1", "[\"a\"]", "true"}},
      {"i", "input_suffix", {"1", "[\"a\"]", "true"}},
      {"i", "prompt", {"1", "[\"a\"]"}},
      {"i", "input_extra", {"1", "\"a\"", "{}"}},
      {"i", "input_extra", {"[1]", "[\"a\"]"}, "input_extra[0]"},
      {"i", "input_extra", {"[{}]", "[{\"text\": 1}]"}, "input_extra[0].text"},
      {"i", "input_extra", {"[{\"text\": \"\", \"filename\": 1}]"}, "input_extra[0].filename"},
      {"cr", "messages", {"null", "[]", "1", "\"hi\"", "{}"}},
      {"cr", "messages", {"[1]", "[\"hi\"]", "[null]", "[[]]"}, "messages[0]"},
      {"cr",
       "messages",
       {"[{}]", "[{\"role\": 1, \"content\": \"\"}]", "[{\"role\": null, \"content\": \"\"}]",
        "[{\"role\": \"boss\", \"content\": \"\"}]", "[{\"role\": \"\", \"content\": \"\"}]"},
       "messages[0].role"},
      {"cr",
       "messages",
       {"[{\"role\": \"user\"}]", "[{\"role\": \"user\", \"content\": null}]",
        "[{\"role\": \"user\", \"content\": 1}]", "[{\"role\": \"user\", \"content\": []}]",
        "[{\"role\": \"user\", \"content\": {}}]"},
       "messages[0].content"},
      {"cr", "messages", {"[{\"role\": \"user\", \"content\": [1]}]"}, "messages[0].content[0]"},
      {"cr",
       "messages",
       {"[{\"role\": \"user\", \"content\": [{\"text\": \"a\"}]}]"},
       "messages[0].content[0].type"},
      {"cr",
       "messages",
       {"[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]"},
       "messages[0].content[0].text"},
      {"cr", "messages", {"[{\"role\": \"user\", \"content\": \"raise\"}]"}, nullptr, ""},
      {"k", "content", {"null", "1", "[\"a\"]", "true"}},
      {"k", "add_special", {"1", "\"x\""}},
      {"k", "parse_special", {"1", "\"x\""}},
      {"k", "with_pieces", {"1", "\"x\""}},
      {"k", "prompt", {"\"a\""}, "content"},
      {"d", "tokens", {"null", "1", "\"a\"", "{}"}},
      {"d", "tokens", {"[-1]", "[1000000]", "[\"a\"]", "[1.5]"}, "tokens[0]"},
  };
  return all;
}

const std::vector<BadField>& missing_features() {
  constexpr const char* kCode = "unsupported_parameter";
  static const std::vector<BadField> all = {
      {"ctr", "tools", {"[{\"type\": \"function\"}]", "true"}, nullptr, kCode},
      {"ctr", "tool_choice", {"\"required\"", "{\"type\": \"function\"}"}, nullptr, kCode},
      {"ctr", "functions", {"[{\"name\": \"f\"}]"}, nullptr, kCode},
      {"ctr", "function_call", {"{\"name\": \"f\"}"}, nullptr, kCode},
      {"ctlir",
       "response_format",
       {"{\"type\": \"json_object\"}", "{\"type\": \"json_schema\"}", "{}", "\"text\""},
       nullptr,
       kCode},
      {"ctr", "structured_outputs", {"{\"json\": {}}"}, nullptr, kCode},
      {"ctr", "guided_json", {"{\"type\": \"object\"}"}, nullptr, kCode},
      {"ctr", "guided_regex", {"\"(a+)+b\""}, nullptr, kCode},
      {"ctr", "guided_choice", {"[\"a\"]"}, nullptr, kCode},
      {"ctlir", "grammar", {"\"root ::= x\""}, nullptr, kCode},
      {"li", "json_schema", {"{}"}, nullptr, kCode},
      {"ctr", "bad_words", {"[\"a\"]"}, nullptr, kCode},
      {"ctr", "allowed_token_ids", {"[1]"}, nullptr, kCode},
      {"ctr", "modalities", {"[\"text\", \"audio\"]", "[\"audio\"]", "\"text\""}, nullptr, kCode},
      {"ctr", "audio", {"{\"voice\": \"x\"}"}, nullptr, kCode},
      {"ctr", "web_search_options", {"{}"}, nullptr, kCode},
      {"ctr", "prediction", {"{\"type\": \"content\"}"}, nullptr, kCode},
      {"ctr", "prompt_logprobs", {"0", "1"}, nullptr, kCode},
      {"ctr", "truncate_prompt_tokens", {"5"}, nullptr, kCode},
      {"cr", "chat_template", {"\"{{ x }}\""}, nullptr, kCode},
      {"cr", "continue_final_message", {"true"}, nullptr, kCode},
      {"li", "post_sampling_probs", {"true"}, nullptr, kCode},
      {"li", "lora", {"[{\"id\": 0}]"}, nullptr, kCode},
      {"li", "image_data", {"[{\"data\": \"\"}]"}, nullptr, kCode},
      {"cr", "messages", {"[{\"role\": \"tool\", \"content\": \"\"}]"}, "messages[0].role", kCode},
      {"cr",
       "messages",
       {"[{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [{}]}]"},
       "messages[0].tool_calls",
       kCode},
      {"cr",
       "messages",
       {"[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {}}]}]",
        "[{\"role\": \"user\", \"content\": [{\"type\": \"input_audio\"}]}]"},
       "messages[0].content[0].type",
       kCode},
  };
  return all;
}

void expect_error(const Endpoint& endpoint, const ApiError& error, const BadField& expected) {
  EXPECT_EQ(error.status, expected.status);
  const std::string param = expected.param == nullptr ? expected.field : expected.param;
  // Prompts may be lists of lists: the place inside may be named as well.
  const bool may_go_deeper = expected.param == nullptr && param == "prompt";
  const std::string named = error.param.value_or("");
  EXPECT_TRUE(named == param || (may_go_deeper && named.starts_with(param + "["))) << named;
  EXPECT_EQ(error.code.value_or(""), expected.code);
  EXPECT_FALSE(error.message.empty());
  const boost::json::value body = json_of(error_body(error));
  EXPECT_EQ(body.at("error").at("message").as_string(), error.message);
  EXPECT_EQ(body.at("error").at("type").as_string(), "invalid_request_error");
  EXPECT_EQ(body.at("error").at("param").as_string(), named);
  EXPECT_NE(endpoint.letter, '\0');
}

// How many bodies were refused as they should.
int check_table(const std::vector<BadField>& table) {
  const auto model = tiny_model();
  int cases = 0;
  for (const BadField& bad : table) {
    for (const char* value : bad.values) {
      for (const Endpoint& endpoint : endpoints()) {
        if (std::string_view(bad.where).find(endpoint.letter) == std::string_view::npos) continue;
        const std::string body = body_with(endpoint, bad.field, value);
        SCOPED_TRACE(std::string(1, endpoint.letter) + " " + body);
        const auto error = endpoint.refuse(model->info, request_of(body));
        ++cases;
        if (!error) {
          ADD_FAILURE() << "accepted";
        } else {
          expect_error(endpoint, *error, bad);
        }
      }
    }
  }
  return cases;
}

TEST(BadBodies, wrong_values_are_refused_by_name) {
  EXPECT_GE(check_table(bad_values()), 500);
}

TEST(BadBodies, wrong_inputs_are_refused_by_place) {
  EXPECT_GE(check_table(bad_inputs()), 130);
}

TEST(BadBodies, features_that_do_not_exist_are_refused_by_name) {
  EXPECT_GE(check_table(missing_features()), 90);
}

TEST(BadBodies, every_endpoint_refuses_what_is_no_object) {
  const auto model = tiny_model();
  const std::string bodies[] = {"",
                                " ",
                                "x",
                                "[]",
                                "1",
                                "null",
                                "{",
                                "{}}",
                                "{\"a\": 1, \"a\": 2}",
                                "{\"a\": \"\x80\"}",
                                R"({"a": "\ud800"})",
                                "{\"a\": 1e309}",
                                "{\"a\": " + std::string(100'000, '[')};
  for (const Endpoint& endpoint : endpoints()) {
    EXPECT_EQ(endpoint.refuse(model->info, request_of(std::string("{") + endpoint.needs + "}")),
              std::nullopt)
        << endpoint.letter;
    for (const std::string& body : bodies) {
      const auto error = endpoint.refuse(model->info, request_of(body));
      ASSERT_TRUE(error.has_value()) << endpoint.letter << body.substr(0, 50);
      EXPECT_EQ(error->status, 400U);
      EXPECT_EQ(error->code, "invalid_json");
    }
  }
}

TEST(BadBodies, errors_never_repeat_what_was_sent) {
  const auto model = tiny_model();
  for (const auto* table : {&bad_values(), &bad_inputs(), &missing_features()}) {
    for (const BadField& bad : *table) {
      for (const Endpoint& endpoint : endpoints()) {
        const std::string body = body_with(endpoint, bad.field, R"("r\u00e4w \u0007")");
        const auto error = endpoint.refuse(model->info, request_of(body));
        if (!error) continue;
        EXPECT_THAT(error->message, Not(HasSubstr("w \a"))) << body;
        EXPECT_THAT(error->message, Not(HasSubstr("r\u00e4"))) << body;
      }
    }
  }
}

TEST(BadBodies, lists_that_are_too_long_are_refused) {
  const auto model = tiny_model();
  const auto repeated = [](const std::string& entry, size_t count) {
    std::string list = "[" + entry;
    for (size_t i = 1; i < count; ++i) list += "," + entry;
    return list + "]";
  };
  const auto param_of = [&](char letter, const std::string& field, const std::string& value) {
    for (const Endpoint& endpoint : endpoints()) {
      if (endpoint.letter != letter) continue;
      const auto error =
          endpoint.refuse(model->info, request_of(body_with(endpoint, field, value)));
      return error ? error->param.value_or("none") : "accepted";
    }
    return std::string("no endpoint");
  };
  EXPECT_EQ(param_of('c', "stop", repeated("\"a\"", 16)), "accepted");
  EXPECT_EQ(param_of('c', "stop", repeated("\"a\"", 17)), "stop");
  EXPECT_EQ(param_of('c', "stop", "\"" + std::string(1024, 'a') + "\""), "accepted");
  EXPECT_EQ(param_of('c', "stop", "\"" + std::string(1025, 'a') + "\""), "stop");
  EXPECT_EQ(param_of('c', "stop_token_ids", repeated("1", 129)), "stop_token_ids");
  EXPECT_EQ(param_of('c', "cache_salt", "\"" + std::string(1025, 'a') + "\""), "cache_salt");
  const std::string message = R"({"role": "user", "content": ""})";
  EXPECT_EQ(param_of('c', "messages", repeated(message, 4097)), "messages");
  EXPECT_EQ(param_of('t', "prompt", repeated("\"a\"", model->info.prompts_max)), "accepted");
  EXPECT_EQ(param_of('t', "prompt", repeated("\"a\"", model->info.prompts_max + 1)), "prompt");
  EXPECT_EQ(param_of('l', "logit_bias", repeated("[1, 1]", 1025)), "logit_bias");
  std::string biases = "{\"0\": 1";
  for (int i = 1; i < 1025; ++i) biases += ", \"" + std::to_string(i) + "\": 1";
  EXPECT_EQ(param_of('c', "logit_bias", biases + "}"), "logit_bias");
}

}  // namespace
}  // namespace kvasir::serve
