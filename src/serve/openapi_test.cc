#include "serve/openapi.h"

#include <gtest/gtest.h>

#include <functional>
#include <set>

#include "serve/parameters.h"
#include "serve/testing.h"
#include "serve/testing_schema.h"
#include "serve/text_api.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

class OpenApi : public ::testing::Test {
 protected:
  json::object describe(bool needs_key) const {
    return json_of(openapi_document({.version = "1.2.3",
                                     .model_id = model_->info.id,
                                     .needs_key = needs_key,
                                     .vocab_size = model_->info.vocab_size(),
                                     .tokens_max = model_->info.tokens_max,
                                     .prompts_max = model_->info.prompts_max,
                                     .messages_max = model_->info.messages_max}))
        .as_object();
  }
  const json::object& schemas() const {
    return document_.at("components").at("schemas").as_object();
  }
  const json::object& operation(std::string_view method, std::string_view path) const {
    return document_.at("paths").at(path).at(method).as_object();
  }
  std::string violation(std::string_view schema, const json::value& value) const {
    return testing::SchemaValidator(schemas()).check(schema, value);
  }

  static json::value json_of(std::string_view text) { return testing::json_of(text); }

  std::unique_ptr<testing::TestModel> model_ = testing::tiny_model();
  json::object document_ = describe(/*needs_key=*/true);
};

// Status with which the server meets a body; 200: it is accepted.
using Meet = std::function<unsigned(const ModelInfo&, const http::Request&)>;

Meet meet(ApiResult<std::unique_ptr<Call>> (*parse)(const ModelInfo&, const http::Request&)) {
  return [parse](const ModelInfo& model, const http::Request& request) -> unsigned {
    const auto call = parse(model, request);
    return call ? 200 : call.error().status;
  };
}
Meet meet(http::Response (*answer)(const ModelInfo&, const http::Request&)) {
  return [answer](const ModelInfo& model, const http::Request& request) {
    return answer(model, request).status;
  };
}

struct Door {
  std::string_view path;
  std::string_view schema;
  Meet meet;
};

std::vector<Door> doors() {
  return {{"/v1/chat/completions", "ChatRequest", meet(parse_chat)},
          {"/v1/chat/completions/render", "RenderRequest", meet(render_response)},
          {"/v1/completions", "CompletionRequest", meet(parse_completion)},
          {"/completion", "LlamaRequest", meet(parse_llama_completion)},
          {"/completions", "LlamaRequest", meet(parse_llama_completion)},
          {"/infill", "InfillRequest", meet(parse_infill)},
          {"/tokenize", "TokenizeRequest", meet(tokenize_response)},
          {"/detokenize", "DetokenizeRequest", meet(detokenize_response)}};
}

void collect_refs(const json::value& value, std::vector<std::string>& refs) {
  if (const json::array* list = value.if_array()) {
    for (const json::value& item : *list) collect_refs(item, refs);
  }
  const json::object* object = value.if_object();
  if (object == nullptr) return;
  for (const json::key_value_pair& field : *object) {
    if (field.key() == "$ref") refs.emplace_back(field.value().as_string());
    collect_refs(field.value(), refs);
  }
}

TEST_F(OpenApi, every_reference_leads_to_a_schema) {
  std::vector<std::string> refs;
  collect_refs(document_, refs);
  EXPECT_GT(refs.size(), 50U);
  for (const std::string& ref : refs) {
    ASSERT_TRUE(ref.starts_with("#/components/schemas/")) << ref;
    EXPECT_TRUE(schemas().contains(ref.substr(21))) << ref;
  }
}

TEST_F(OpenApi, every_operation_has_a_name_of_its_own_an_answer_and_documented_errors) {
  std::set<std::string> ids;
  for (const json::key_value_pair& path : document_.at("paths").as_object()) {
    for (const json::key_value_pair& method : path.value().as_object()) {
      const json::object& operation = method.value().as_object();
      EXPECT_TRUE(ids.emplace(operation.at("operationId").as_string()).second) << path.key();
      const json::object& responses = operation.at("responses").as_object();
      for (const char* status : {"200", "400", "405"}) {
        EXPECT_TRUE(responses.contains(status)) << path.key();
      }
      for (const json::key_value_pair& response : responses) {
        EXPECT_FALSE(response.value().at("description").as_string().empty()) << path.key();
      }
      EXPECT_EQ(operation.contains("requestBody"), responses.contains("404")) << path.key();
    }
  }
  EXPECT_EQ(ids.size(), 19U);
}

TEST_F(OpenApi, keys_are_asked_for_only_where_they_are_needed) {
  EXPECT_TRUE(document_.at("components").at("securitySchemes").as_object().contains("key"));
  EXPECT_EQ(document_.at("security").as_array().size(), 1U);
  for (const char* path : {"/livez", "/readyz", "/health"}) {
    EXPECT_TRUE(operation("get", path).at("security").as_array().empty()) << path;
    EXPECT_FALSE(operation("get", path).at("responses").as_object().contains("401")) << path;
  }
  EXPECT_FALSE(operation("post", "/v1/completions").contains("security"));
  EXPECT_TRUE(operation("get", "/metrics").at("responses").as_object().contains("401"));
  document_ = describe(/*needs_key=*/false);
  EXPECT_FALSE(document_.contains("security"));
  EXPECT_FALSE(document_.at("components").as_object().contains("securitySchemes"));
  EXPECT_FALSE(operation("get", "/livez").contains("security"));
  EXPECT_FALSE(operation("get", "/metrics").at("responses").as_object().contains("401"));
}

TEST_F(OpenApi, every_parameter_stands_in_the_requests_of_its_dialects) {
  const std::vector<std::pair<Dialect, std::string_view>> requests = {
      {Dialect::kChat, "ChatRequest"},
      {Dialect::kChat, "RenderRequest"},
      {Dialect::kCompletion, "CompletionRequest"},
      {Dialect::kLlama, "LlamaRequest"},
      {Dialect::kLlama, "InfillRequest"}};
  for (const auto& [dialect, name] : requests) {
    const json::object& fields = schemas().at(name).at("properties").as_object();
    for (const ParameterSpec& spec : parameters()) {
      if (!spec.is_in(dialect)) continue;
      ASSERT_TRUE(fields.contains(spec.name)) << name << "." << spec.name;
      const json::object& field = fields.at(spec.name).as_object();
      EXPECT_EQ(std::string_view(field.at("description").as_string()), spec.meaning)
          << name << "." << spec.name;
      if (spec.type() != ParameterType::kNumber) continue;
      EXPECT_EQ(field.at("minimum"), spec.min) << name << "." << spec.name;
      EXPECT_EQ(field.at("maximum"), spec.max) << name << "." << spec.name;
    }
  }
}

TEST_F(OpenApi, seeds_have_the_bounds_of_64_bits_to_the_last_one) {
  const json::value& seed = schemas().at("ChatRequest").at("properties").at("seed");
  EXPECT_EQ(seed.at("minimum"), INT64_MIN);
  EXPECT_EQ(seed.at("maximum"), INT64_MAX);
}

TEST_F(OpenApi, the_examples_follow_their_schemas_and_are_accepted) {
  for (const Door& door : doors()) {
    const json::value& content = operation("post", door.path).at("requestBody").at("content");
    const json::value& example = content.at("application/json").at("example");
    EXPECT_EQ(violation(door.schema, example), "") << door.path;
    EXPECT_EQ(door.meet(model_->info, testing::request_of(json::serialize(example))), 200U)
        << door.path;
  }
}

// Values of all kinds and around all kinds of bounds.
json::array odd_values() {
  json::array values = testing::json_of(R"([
      null, true, false, 0, 1, -1, -2, 2, 7, 16, 17, 20, 21, 100, 101, 511, 512, 1000000,
      2147483648, -9223372036854775808, 9223372036854775807, 9223372036854775808,
      0.5, 1.0, 1.5, -0.5, 0.9995, 2.5, 1e300, 1e-9, "", "a", "tiny", "other", {}, [],
      [1, 2], ["a", "b"], [""], [1, "a"], [-1], [1000000], [1.5], [null], [[]],
      [[1, 2]], [[1, false]], [[1, true]], [["1", 2]], [[1]], [["a"]],
      {"1": 5}, {"1": 101}, {"x": 1}, {"-1": 1}, {"": 1}, {"1": "a"},
      {"include_usage": true}, {"include_usage": 1},
      [{"role": "user", "content": "a"}], [{"role": "tool", "content": "a"}], [{"role": "user"}],
      [{"role": "user", "content": []}], [{"role": "user", "content": null}],
      [{"role": "user", "content": [{"type": "text", "text": "a"}]}],
      [{"role": "user", "content": [{"type": "image_url", "text": "a"}]}],
      [{"text": "a"}], [{"text": 1}], [{"text": "a", "filename": 1}]])")
                           .as_array();
  const std::string long_text(1025, 'x');
  values.emplace_back(long_text);
  values.emplace_back(json::array{long_text});
  values.emplace_back(json::array(17, "a"));
  values.emplace_back(json::array(129, 1));
  values.emplace_back(json::array(1025, json::array{1, 1}));
  return values;
}

// What the document forbids, the server refuses: so a client that is told "wrong" by the schema
// would have been told by the server.
TEST_F(OpenApi, what_a_schema_forbids_is_refused) {
  size_t forbidden = 0;
  for (const Door& door : doors()) {
    const json::value& content = operation("post", door.path).at("requestBody").at("content");
    const json::object example = content.at("application/json").at("example").as_object();
    std::set<std::string> names = {"model",  "messages", "prompt",       "content",
                                   "tokens", "suffix",   "input_prefix", "input_extra"};
    for (const ParameterSpec& spec : parameters()) names.emplace(spec.name);
    for (const std::string& name : names) {
      for (const json::value& value : odd_values()) {
        json::object body = example;
        body[name] = value;
        if (violation(door.schema, body).empty()) continue;
        ++forbidden;
        const std::string text = json::serialize(body);
        const unsigned status = door.meet(model_->info, testing::request_of(text));
        EXPECT_TRUE(status == 400 || status == 404)
            << door.path << " " << status << " " << text.substr(0, 200) << "\n"
            << violation(door.schema, body);
      }
    }
    for (const json::key_value_pair& field : example) {
      json::object body = example;
      body.erase(field.key());
      if (violation(door.schema, body).empty()) continue;
      ++forbidden;
      EXPECT_EQ(door.meet(model_->info, testing::request_of(json::serialize(body))), 400U)
          << door.path << " without " << field.key();
    }
  }
  EXPECT_GT(forbidden, 2000U);
}

// The whole answer to a body, made of three tokens per choice.
json::value answer_to(const ModelInfo& model, const std::string& body,
                      ApiResult<std::unique_ptr<Call>> (*parse)(const ModelInfo&,
                                                                const http::Request&)) {
  auto call = parse(model, testing::request_of(body));
  if (!call) return {{"refused", call.error().message}};
  const std::vector<api::GenerateRequest> requests = (*call)->requests();
  const api::TokenDetail detail{.logprob = -0.5F, .top = {{.token = 5, .logprob = -0.25F}}};
  for (size_t i = 0; i < requests.size(); ++i) {
    for (uint32_t position = 1; requests[i].score_prompt && position < requests[i].prompt.size();
         ++position) {
      (*call)->score(i, {.position = position, .detail = detail});
    }
    for (uint32_t choice = 0; choice < requests[i].choices; ++choice) {
      api::AnswerPart part{.choice = choice, .text = "abc", .tokens = {5, 6, 7}};
      if (requests[i].logprobs) part.details.assign(3, detail);
      part.ending = testing::ending_of(api::EndReason::kLength, 3);
      (*call)->part(i, part);
    }
  }
  const http::Response response = (*call)->whole();
  EXPECT_EQ(response.status, 200U);
  return testing::json_of(response.body);
}

TEST_F(OpenApi, answers_of_completions_are_as_described) {
  const std::vector<std::string> fields = {"", R"(,"logprobs":0)", R"(,"logprobs":2,"echo":true)",
                                           R"(,"n":3)", R"(,"best_of":2)"};
  for (const std::string& field : fields) {
    const std::string body = R"({"prompt":["ab","c"],"max_tokens":3)" + field + "}";
    const json::value answer = answer_to(model_->info, body, parse_completion);
    EXPECT_EQ(violation("CompletionAnswer", answer), "") << body;
  }
}

TEST_F(OpenApi, answers_of_chats_are_as_described) {
  for (const std::string field : {"", R"(,"logprobs":true,"top_logprobs":2)", R"(,"n":2)"}) {
    const std::string body =
        R"({"messages":[{"role":"user","content":"hi"}],"max_tokens":3)" + field + "}";
    const json::value answer = answer_to(model_->info, body, parse_chat);
    EXPECT_EQ(violation("ChatAnswer", answer), "") << body;
  }
}

TEST_F(OpenApi, answers_in_the_dialect_of_llama_cpp_are_as_described) {
  const std::vector<std::string> bodies = {
      R"({"prompt":"ab"})", R"({"prompt":["ab","c"],"n_probs":2,"return_tokens":true})",
      R"({"prompt":"ab","response_fields":["content","timings/prompt_n"]})"};
  for (const std::string& body : bodies) {
    const json::value answer = answer_to(model_->info, body, parse_llama_completion);
    EXPECT_EQ(violation("LlamaAnswers", answer), "") << body;
  }
  const json::value infill =
      answer_to(model_->info, R"({"input_prefix":"a","input_suffix":"b"})", parse_infill);
  EXPECT_EQ(violation("LlamaAnswers", infill), "");
}

TEST_F(OpenApi, answers_without_the_engine_are_as_described) {
  using Respond = http::Response (*)(const ModelInfo&, const http::Request&);
  struct Case {
    Respond respond;
    std::string schema;
    std::string body;
  };
  const std::string chat = R"({"messages":[{"role":"user","content":"hi"}]})";
  const std::vector<Case> cases = {
      {tokenize_response, "TokenizeAnswer", R"({"content":"ab c"})"},
      {tokenize_response, "TokenizeAnswer", R"({"content":"ab","with_pieces":true})"},
      {tokenize_response, "TokenizeAnswer", R"({"prompt":"ab","return_token_strs":true})"},
      {tokenize_response, "TokenizeAnswer", chat},
      {detokenize_response, "DetokenizeAnswer", R"({"tokens":[5,6]})"},
      {render_response, "RenderAnswer", chat}};
  for (const Case& each : cases) {
    const http::Response response = each.respond(model_->info, testing::request_of(each.body));
    ASSERT_EQ(response.status, 200U) << each.body;
    EXPECT_EQ(violation(each.schema, json_of(response.body)), "") << each.body;
  }
  EXPECT_EQ(violation("Models", models_json(model_->info)), "");
}

TEST_F(OpenApi, errors_are_as_described) {
  EXPECT_EQ(violation("Error", json_of(error_body({.message = "no"}))), "");
  EXPECT_EQ(violation("Error", json_of(error_body({.param = "n", .code = "invalid_value"}))), "");
  EXPECT_NE(violation("Error", json_of(R"({"error":"no"})")), "");
}

}  // namespace
}  // namespace kvasir::serve
