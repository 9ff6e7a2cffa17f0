#include "serve/parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "serve/testing.h"
#include "serve/unsupported.h"

namespace kvasir::serve {
namespace {

using ::testing::ElementsAre;
using testing::json_of;

constexpr Dialect kDialects[] = {Dialect::kChat, Dialect::kCompletion, Dialect::kLlama};

Parameters read_valid(const std::string& body, Dialect dialect) {
  const auto values = read_parameters(json_of(body).as_object(), dialect, 288);
  EXPECT_TRUE(values.has_value()) << body << ": " << values.error().message;
  return values.value_or(Parameters{});
}

std::string refused_param(const std::string& body, Dialect dialect) {
  const auto values = read_parameters(json_of(body).as_object(), dialect, 288);
  return values ? "accepted" : values.error().param.value_or("none");
}

TEST(Parameters, the_table_has_each_name_once_per_dialect) {
  for (const Dialect dialect : kDialects) {
    std::set<std::string_view> names;
    for (const ParameterSpec& spec : parameters()) {
      if (!spec.is_in(dialect)) continue;
      EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    }
    EXPECT_GE(names.size(), 15U);
  }
}

TEST(Parameters, rows_are_described_and_their_defaults_are_in_range) {
  for (const ParameterSpec& spec : parameters()) {
    EXPECT_NE(spec.dialects, 0) << spec.name;
    EXPECT_TRUE(spec.meaning.ends_with('.')) << spec.name;
    EXPECT_LE(spec.min, spec.max) << spec.name;
    if (!spec.initial) continue;
    EXPECT_GE(*spec.initial, spec.min) << spec.name;
    EXPECT_LE(*spec.initial, spec.max) << spec.name;
  }
}

TEST(Parameters, both_ends_of_every_range_are_accepted) {
  for (const ParameterSpec& spec : parameters()) {
    if (spec.type() != ParameterType::kNumber && spec.type() != ParameterType::kInteger) continue;
    for (const double end : {spec.min, spec.max}) {
      // Cross rules would object to some of them alone.
      boost::json::object body{{"logprobs", true}};
      if (spec.name == "logprobs") body.clear();
      if (spec.name == "seed") continue;  // its bounds are no doubles
      body["max_tokens"] = 2147483647;
      if (spec.type() == ParameterType::kNumber) {
        body[spec.name] = end;
      } else {
        body[spec.name] = static_cast<int64_t>(end);
      }
      const Dialect dialect = spec.is_in(Dialect::kChat)         ? Dialect::kChat
                              : spec.is_in(Dialect::kCompletion) ? Dialect::kCompletion
                                                                 : Dialect::kLlama;
      if (dialect == Dialect::kCompletion && spec.name != "logprobs") body.erase("logprobs");
      const auto values = read_parameters(body, dialect, 288);
      EXPECT_TRUE(values.has_value()) << spec.name << " " << end << values.error().message;
    }
  }
}

TEST(Parameters, each_api_has_the_defaults_it_documents) {
  const Parameters chat = read_valid("{}", Dialect::kChat);
  EXPECT_EQ(chat.temperature, 1.0);
  EXPECT_EQ(chat.top_p, 1.0);
  EXPECT_EQ(chat.top_k, 0);
  EXPECT_EQ(chat.min_p, 0.0);
  EXPECT_EQ(chat.repetition_penalty, 1.0);
  EXPECT_EQ(chat.seed, std::nullopt);
  EXPECT_EQ(chat.choices, 1);
  EXPECT_EQ(chat.max_tokens, std::nullopt);
  EXPECT_FALSE(chat.stream);
  EXPECT_FALSE(chat.logprobs);
  EXPECT_TRUE(chat.add_generation_prompt);
  EXPECT_TRUE(chat.cache_prompt);
  const Parameters llama = read_valid("{}", Dialect::kLlama);
  EXPECT_EQ(llama.temperature, 0.8);
  EXPECT_EQ(llama.top_k, 40);
  EXPECT_EQ(llama.top_p, 0.95);
  EXPECT_EQ(llama.min_p, 0.05);
  EXPECT_EQ(llama.n_predict, -1);
  EXPECT_EQ(llama.repetition_penalty, 1.0);
  EXPECT_TRUE(llama.cache_prompt);
}

TEST(Parameters, values_arrive_where_they_belong) {
  const Parameters chat = read_valid(R"({"temperature": 0, "top_p": 0.5, "top_k": -1, "min_p": 0.1,
      "repetition_penalty": 1.1, "presence_penalty": -2, "frequency_penalty": 2, "seed": -5,
      "logit_bias": {"7": -100, "287": 1.5}, "n": 3, "max_tokens": 5, "max_completion_tokens": 9,
      "min_tokens": 2, "stop": "x", "stop_token_ids": [4, 5], "include_stop_str_in_output": true,
      "ignore_eos": true, "logprobs": true, "top_logprobs": 20, "stream": true,
      "stream_options": {"include_usage": true, "continuous_usage_stats": true}, "priority": -3,
      "cache_salt": "s", "cache_prompt": false, "add_generation_prompt": false})",
                                     Dialect::kChat);
  EXPECT_EQ(chat.temperature, 0.0);
  EXPECT_EQ(chat.top_p, 0.5);
  EXPECT_EQ(chat.top_k, -1);
  EXPECT_EQ(chat.min_p, 0.1);
  EXPECT_EQ(chat.repetition_penalty, 1.1);
  EXPECT_EQ(chat.presence_penalty, -2.0);
  EXPECT_EQ(chat.frequency_penalty, 2.0);
  EXPECT_EQ(chat.seed, -5);
  ASSERT_EQ(chat.logit_bias.size(), 2U);
  EXPECT_EQ(chat.logit_bias[0].token, 7);
  EXPECT_EQ(chat.logit_bias[0].bias, -100.0F);
  EXPECT_EQ(chat.logit_bias[1].token, 287);
  EXPECT_EQ(chat.logit_bias[1].bias, 1.5F);
  EXPECT_EQ(chat.choices, 3);
  EXPECT_EQ(chat.max_tokens, 5);
  EXPECT_EQ(chat.max_completion_tokens, 9);
  EXPECT_EQ(chat.min_tokens, 2);
  EXPECT_THAT(chat.stop, ElementsAre("x"));
  EXPECT_THAT(chat.stop_tokens, ElementsAre(4, 5));
  EXPECT_TRUE(chat.keeps_stop);
  EXPECT_TRUE(chat.ignore_eos);
  EXPECT_TRUE(chat.logprobs);
  EXPECT_EQ(chat.top_logprobs, 20);
  EXPECT_TRUE(chat.stream);
  EXPECT_TRUE(chat.stream_options.include_usage);
  EXPECT_EQ(chat.priority, -3);
  EXPECT_EQ(chat.cache_salt, "s");
  EXPECT_FALSE(chat.cache_prompt);
  EXPECT_FALSE(chat.add_generation_prompt);
}

TEST(Parameters, names_of_other_dialects_are_ignored) {
  const Parameters chat = read_valid(
      R"({"n_predict": "x", "best_of": "x", "echo": 3, "n_probs": [], "repeat_penalty": -1,
          "user": 5, "metadata": {"a": 1}, "store": true, "nonsense": [[]]})",
      Dialect::kChat);
  EXPECT_EQ(chat.choices, 1);
  EXPECT_EQ(chat.repetition_penalty, 1.0);
  const Parameters llama = read_valid(
      R"({"n": 5, "max_tokens": -7, "logprobs": 3, "n_indent": 4, "samplers": ["top_k"],
          "t_max_predict_ms": 500, "id_slot": -1})",
      Dialect::kLlama);
  EXPECT_EQ(llama.choices, 1);
  EXPECT_EQ(llama.logprobs_count, std::nullopt);
}

TEST(Parameters, null_is_absent) {
  const Parameters values = read_valid(
      R"({"temperature": null, "n": null, "stop": null, "stream": null, "seed": null,
          "logit_bias": null, "stream_options": null, "logprobs": null, "max_tokens": null})",
      Dialect::kCompletion);
  EXPECT_EQ(values.temperature, 1.0);
  EXPECT_EQ(values.choices, 1);
  EXPECT_EQ(values.logprobs_count, std::nullopt);
  EXPECT_FALSE(values.stream_options.given);
}

TEST(Parameters, biases_may_be_listed_as_pairs) {
  const Parameters values =
      read_valid(R"({"logit_bias": [[3, 1.5], [4, false]]})", Dialect::kLlama);
  ASSERT_EQ(values.logit_bias.size(), 2U);
  EXPECT_EQ(values.logit_bias[0].bias, 1.5F);
  EXPECT_EQ(values.logit_bias[1].token, 4);
  EXPECT_EQ(values.logit_bias[1].bias, -100.0F);
}

TEST(Parameters, fields_must_agree) {
  EXPECT_EQ(refused_param(R"({"stream_options": {}})", Dialect::kChat), "stream_options");
  EXPECT_EQ(refused_param(R"({"stream_options": {}, "stream": true})", Dialect::kChat), "accepted");
  EXPECT_EQ(refused_param(R"({"top_logprobs": 1})", Dialect::kChat), "top_logprobs");
  EXPECT_EQ(refused_param(R"({"top_logprobs": 0})", Dialect::kChat), "accepted");
  EXPECT_EQ(refused_param(R"({"best_of": 2, "n": 3})", Dialect::kCompletion), "best_of");
  EXPECT_EQ(refused_param(R"({"best_of": 3, "n": 3, "stream": true})", Dialect::kCompletion),
            "accepted");
  EXPECT_EQ(refused_param(R"({"best_of": 4, "n": 3, "stream": true})", Dialect::kCompletion),
            "best_of");
  EXPECT_EQ(refused_param(R"({"min_tokens": 4, "max_tokens": 3})", Dialect::kChat), "min_tokens");
  EXPECT_EQ(refused_param(R"({"min_tokens": 4, "max_tokens": 3, "max_completion_tokens": 4})",
                          Dialect::kChat),
            "accepted");
}

TEST(Parameters, ways_to_say_no_to_a_missing_feature_are_accepted) {
  for (const char* body :
       {R"({"tools": []})", R"({"tools": null})", R"({"tool_choice": "none"})",
        R"({"tool_choice": "auto"})", R"({"function_call": "none"})", R"({"functions": []})",
        R"({"response_format": {"type": "text"}})", R"({"modalities": ["text"]})",
        R"({"audio": null})", R"({"prediction": null})", R"({"grammar": ""})",
        R"({"continue_final_message": false})", R"({"chat_template": ""})",
        R"({"parallel_tool_calls": true, "service_tier": "auto", "reasoning_effort": "low"})"}) {
    EXPECT_TRUE(check_supported(json_of(body).as_object(), Dialect::kChat).has_value()) << body;
  }
}

}  // namespace
}  // namespace kvasir::serve
