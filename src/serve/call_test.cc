// The answers of every dialect, word by word.
#include "serve/call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

#include "serve/testing.h"

namespace kvasir::serve {
namespace {

using ::testing::ElementsAre;
using testing::ending_of;
using testing::events_of;
using testing::json_of;
using testing::request_of;
using ::testing::SizeIs;
using testing::TestModel;

namespace json = boost::json;

// What the endings of testing::ending_of() add up to.
constexpr std::string_view kUsage =
    R"("usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 0}})";
constexpr std::string_view kTimings =
    R"("timings": {"cache_n": 4, "prompt_n": 6, "prompt_ms": 6.0, "prompt_per_token_ms": 1.0,
        "prompt_per_second": 1000.0, "predicted_n": 2, "predicted_ms": 2.0,
        "predicted_per_token_ms": 1.0, "predicted_per_second": 1000.0})";

class Calls : public ::testing::Test {
 protected:
  using Parse = ApiResult<std::unique_ptr<Call>> (*)(const ModelInfo&, const http::Request&);

  std::unique_ptr<Call> parsed(Parse parse, const std::string& body) {
    auto call = parse(model_->info, request_of(body));
    EXPECT_TRUE(call.has_value()) << body << ": " << call.error().message;
    return *std::move(call);
  }
  std::unique_ptr<Call> chat(const std::string& fields) {
    return parsed(parse_chat, R"({"messages": [{"role": "user", "content": "hi"}])" + fields + "}");
  }

  TokenId id_of(std::string_view text) const {
    const auto ids = model_->encode(text);
    EXPECT_THAT(ids, SizeIs(1)) << text;
    return ids.front();
  }
  // Two tokens: "a" of logprob -0.5 and "b" of -0.25, which were also likely the other way round.
  api::AnswerPart two_tokens() const {
    const TokenId a = id_of("a");
    const TokenId b = id_of("b");
    return {.text = "ab",
            .tokens = {a, b},
            .details = {{-0.5F, {{a, -0.5F}, {b, -1.5F}}}, {-0.25F, {{a, -0.125F}, {b, -0.25F}}}}};
  }
  static api::AnswerPart ended(uint32_t choice, std::string text, api::Ending ending) {
    return {.choice = choice, .text = std::move(text), .ending = std::move(ending)};
  }

  // The answer without its time, which is checked here.
  static json::value timeless(json::value value) {
    json::object& object = value.as_object();
    if (const json::value* created = object.if_contains("created")) {
      EXPECT_NEAR(created->to_number<double>(), static_cast<double>(std::time(nullptr)), 60.0);
      object.erase("created");
    }
    return value;
  }
  static json::value whole(Call& call) {
    const http::Response response = call.whole();
    EXPECT_EQ(response.status, 200U) << response.body;
    return timeless(json_of(response.body));
  }
  static std::vector<json::value> events(const std::string& stream) {
    std::vector<json::value> values;
    for (const std::string& event : events_of(stream)) {
      values.push_back(event == "[DONE]" ? json::value(event) : timeless(json_of(event)));
    }
    return values;
  }
  static json::value with(const std::string& text, std::string_view more = {}) {
    return json_of(more.empty() ? "{" + text + "}" : "{" + text + ", " + std::string(more) + "}");
  }

  std::unique_ptr<TestModel> model_ = testing::tiny_model();
};

TEST_F(Calls, a_whole_chat_answer) {
  const auto call = chat("");
  EXPECT_FALSE(call->streams());
  EXPECT_EQ(call->begin(), "");
  EXPECT_EQ(call->part(0, {.text = "Hel"}), "");
  EXPECT_EQ(call->part(0, ended(0, "lo", ending_of(api::EndReason::kStop, 2))), "");
  EXPECT_EQ(call->end(), "");
  EXPECT_EQ(whole(*call), with(R"("id": "chatcmpl-r1", "object": "chat.completion", "model": "tiny",
                    "system_fingerprint": "fp_test", "choices": [{"index": 0,
                    "message": {"role": "assistant", "content": "Hello", "refusal": null},
                    "logprobs": null, "finish_reason": "stop", "stop_reason": null}])",
                               std::string(kUsage) + ", " + std::string(kTimings)));
}

TEST_F(Calls, chat_log_probabilities) {
  const auto call = chat(R"(, "logprobs": true, "top_logprobs": 2)");
  call->part(0, two_tokens());
  const TokenId half = model_->encode("\xC3\xA9").front();
  call->part(0, {.tokens = {half, model_->eos()},
                 .details = {{-1e30F, {}}, {-1.0F, {}}},
                 .ending = ending_of(api::EndReason::kLength, 4)});
  EXPECT_EQ(whole(*call).at("choices").at(0).at("logprobs"),
            json_of(R"({"content": [
      {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
        {"token": "a", "logprob": -0.5, "bytes": [97]},
        {"token": "b", "logprob": -1.5, "bytes": [98]}]},
      {"token": "b", "logprob": -0.25, "bytes": [98], "top_logprobs": [
        {"token": "a", "logprob": -0.125, "bytes": [97]},
        {"token": "b", "logprob": -0.25, "bytes": [98]}]},
      {"token": ")"
                    "\xEF\xBF\xBD"
                    R"(", "logprob": -9999.0, "bytes": [195], "top_logprobs": []},
      {"token": "<|im_end|>", "logprob": -1.0, "bytes": [60, 124, 105, 109, 95, 101, 110, 100, 124,
        62], "top_logprobs": []}], "refusal": null})"));
}

TEST_F(Calls, a_streamed_chat_answer) {
  const auto call = chat(R"(, "stream": true, "n": 2)");
  ASSERT_EQ(call->requests()[0].choices, 2U);
  const auto chunk = [](const std::string& choice, std::string_view more = {}) {
    return with(R"("id": "chatcmpl-r1", "object": "chat.completion.chunk", "model": "tiny",
                   "system_fingerprint": "fp_test", "choices": [)" +
                    choice + "]",
                more);
  };
  EXPECT_THAT(events(call->begin()),
              ElementsAre(chunk(R"({"index": 0, "delta": {"role": "assistant", "content": ""},
                                    "logprobs": null, "finish_reason": null})"),
                          chunk(R"({"index": 1, "delta": {"role": "assistant", "content": ""},
                                    "logprobs": null, "finish_reason": null})")));
  EXPECT_THAT(events(call->part(0, {.choice = 1, .text = "B", .tokens = {5}})),
              ElementsAre(chunk(R"({"index": 1, "delta": {"content": "B"}, "logprobs": null,
                                    "finish_reason": null})")));
  EXPECT_EQ(call->part(0, {.choice = 0, .tokens = {5}}), "");  // its text is held back
  EXPECT_THAT(events(call->part(0, ended(0, "A", ending_of(api::EndReason::kLength, 1)))),
              ElementsAre(chunk(R"({"index": 0, "delta": {"content": "A"}, "logprobs": null,
                                    "finish_reason": null})"),
                          chunk(R"({"index": 0, "delta": {}, "logprobs": null,
                                    "finish_reason": "length", "stop_reason": null})")));
  EXPECT_THAT(events(call->part(0, ended(1, "", ending_of(api::EndReason::kStop, 1)))),
              ElementsAre(chunk(R"({"index": 1, "delta": {}, "logprobs": null,
                                    "finish_reason": "stop", "stop_reason": null})",
                                kTimings)));
  EXPECT_EQ(call->end(), "data: [DONE]\n\n");
}

TEST_F(Calls, a_usage_event_comes_last_and_the_others_say_that_they_have_none) {
  const auto call = chat(R"(, "stream": true, "stream_options": {"include_usage": true})");
  std::string stream = call->begin();
  stream += call->part(0, {.text = "a"});
  stream += call->part(0, ended(0, "b", ending_of(api::EndReason::kStop, 2)));
  for (const json::value& event : events(stream)) {
    EXPECT_TRUE(event.at("usage").is_null());
    EXPECT_FALSE(event.as_object().contains("timings"));
  }
  EXPECT_THAT(events(call->end()),
              ElementsAre(with(R"("id": "chatcmpl-r1", "object": "chat.completion.chunk",
                                  "model": "tiny", "system_fingerprint": "fp_test", "choices": [])",
                               std::string(kUsage) + ", " + std::string(kTimings)),
                          json::value("[DONE]")));
}

TEST_F(Calls, what_stopped_an_answer_is_told_as_vllm_tells_it) {
  api::Ending by_text = ending_of(api::EndReason::kStop, 1);
  by_text.stopped_by = std::string("END");
  api::Ending by_token = ending_of(api::EndReason::kStop, 1);
  by_token.stopped_by = TokenId{7};
  const auto call = chat(R"(, "n": 2, "stop": "END", "stop_token_ids": [7])");
  call->part(0, ended(0, "", by_text));
  call->part(0, ended(1, "", by_token));
  const json::value choices = whole(*call).at("choices");
  EXPECT_EQ(choices.at(0).at("stop_reason"), "END");
  EXPECT_EQ(choices.at(1).at("stop_reason"), 7);
  EXPECT_EQ(choices.at(1).at("finish_reason"), "stop");
}

TEST_F(Calls, usage_counts_a_prompt_once_and_every_choice) {
  const auto call = parsed(parse_completion, R"({"prompt": ["a", "b"], "n": 2})");
  for (size_t request = 0; request < 2; ++request) {
    for (uint32_t choice = 0; choice < 2; ++choice) {
      call->part(request, ended(choice, "", ending_of(api::EndReason::kLength, 3)));
    }
  }
  const json::value body = whole(*call);
  EXPECT_EQ(body.at("usage").at("prompt_tokens"), 20);
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 12);
  EXPECT_EQ(body.at("usage").at("prompt_tokens_details").at("cached_tokens"), 8);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(body.at("choices").at(i).at("index"), i);
}

TEST_F(Calls, a_whole_completion_with_echo_and_log_probabilities) {
  const auto call = parsed(
      parse_completion, R"({"prompt": "b\u00e9", "echo": true, "logprobs": 1, "max_tokens": 2})");
  const std::vector<TokenId> prompt = call->requests()[0].prompt;  // "b" and the bytes of "é"
  ASSERT_THAT(prompt, SizeIs(3));
  call->score(0, {.position = 1, .detail = {-2.0F, {{prompt[0], -0.5F}}}});
  call->score(0, {.position = 2, .detail = {-1.0F, {{prompt[2], -1.0F}}}});
  call->part(0, two_tokens());
  call->part(0, ended(0, "", ending_of(api::EndReason::kLength, 2)));
  EXPECT_EQ(whole(*call), with(R"("id": "cmpl-r1", "object": "text_completion", "model": "tiny",
                    "system_fingerprint": "fp_test", "choices": [{"index": 0, "text": "b)"
                               "\xC3\xA9"
                               R"(ab",
                    "logprobs": {"tokens": ["b", "bytes:\\xc3", "bytes:\\xa9", "a", "b"],
                      "token_logprobs": [null, -2.0, -1.0, -0.5, -0.25],
                      "top_logprobs": [null, {"b": -0.5, "bytes:\\xc3": -2.0},
                        {"bytes:\\xa9": -1.0}, {"a": -0.5, "b": -1.5}, {"a": -0.125, "b": -0.25}],
                      "text_offset": [0, 1, 1, 2, 3]},
                    "finish_reason": "length", "stop_reason": null}])",
                               std::string(kUsage) + ", " + std::string(kTimings)));
}

TEST_F(Calls, a_prompt_can_be_scored_alone) {
  const auto call = parsed(parse_completion,
                           R"({"prompt": [67, 68], "echo": true, "logprobs": 0, "max_tokens": 0})");
  call->score(0, {.position = 1, .detail = {-2.0F, {}}});
  call->part(0, ended(0, "", ending_of(api::EndReason::kLength, 0)));
  const json::value choice = whole(*call).at("choices").at(0);
  EXPECT_EQ(choice.at("text"), "ab");
  EXPECT_EQ(choice.at("logprobs"), json_of(R"({"tokens": ["a", "b"], "token_logprobs": [null, -2.0],
                        "top_logprobs": [null, {"b": -2.0}], "text_offset": [0, 1]})"));
}

TEST_F(Calls, without_echo_offsets_begin_with_the_answer) {
  const auto call = parsed(parse_completion, R"({"prompt": "abc", "logprobs": 0})");
  call->part(0, two_tokens());
  call->part(0, ended(0, "", ending_of(api::EndReason::kLength, 2)));
  EXPECT_EQ(whole(*call).at("choices").at(0).at("logprobs").at("text_offset"), json_of("[0, 1]"));
}

TEST_F(Calls, a_streamed_completion_brings_the_echo_with_its_first_piece) {
  const auto call = parsed(parse_completion, R"({"prompt": "xy", "echo": true, "stream": true})");
  EXPECT_EQ(call->begin(), "");
  const auto chunk = [](const std::string& choice, std::string_view more = {}) {
    return with(R"("id": "cmpl-r1", "object": "text_completion", "model": "tiny",
                   "system_fingerprint": "fp_test", "choices": [)" +
                    choice + "]",
                more);
  };
  EXPECT_THAT(events(call->part(0, {.text = "a"})),
              ElementsAre(chunk(R"({"index": 0, "text": "xya", "logprobs": null,
                                    "finish_reason": null})")));
  EXPECT_EQ(call->part(0, {.tokens = {5}}), "");
  EXPECT_THAT(events(call->part(0, ended(0, "b", ending_of(api::EndReason::kLength, 2)))),
              ElementsAre(chunk(R"({"index": 0, "text": "b", "logprobs": null,
                                    "finish_reason": "length", "stop_reason": null})",
                                kTimings)));
  EXPECT_EQ(call->end(), "data: [DONE]\n\n");
}

TEST_F(Calls, token_ids_stand_beside_the_text_for_those_who_ask) {
  const auto prompt = json::value_from(model_->encode("xy"));
  const auto completion =
      parsed(parse_completion, R"({"prompt": "xy", "return_token_ids": true, "stream": true})");
  const auto told = events(completion->part(0, {.tokens = {5}}));  // its text is held back
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].at("choices").at(0).at("prompt_token_ids"), prompt);
  EXPECT_EQ(told[0].at("choices").at(0).at("token_ids"), json_of("[5]"));
  const auto last = events(completion->part(
      0, {.text = "ab", .tokens = {6}, .ending = ending_of(api::EndReason::kLength, 2)}));
  ASSERT_THAT(last, SizeIs(1));
  EXPECT_EQ(last[0].at("choices").at(0).at("token_ids"), json_of("[6]"));
  EXPECT_FALSE(last[0].at("choices").at(0).as_object().contains("prompt_token_ids"));

  const auto whole_chat = chat(R"(, "return_token_ids": true)");
  whole_chat->part(0, {.text = "a", .tokens = {5, 6}});
  whole_chat->part(0, ended(0, "", ending_of(api::EndReason::kStop, 2)));
  const json::value answer = whole(*whole_chat);
  EXPECT_EQ(answer.at("choices").at(0).at("token_ids"), json_of("[5, 6]"));
  EXPECT_EQ(answer.at("prompt_token_ids"), json::value_from(whole_chat->requests()[0].prompt));

  const auto streamed = chat(R"(, "return_token_ids": true, "stream": true)");
  const auto begun = events(streamed->begin());
  ASSERT_THAT(begun, SizeIs(1));
  EXPECT_EQ(begun[0].at("prompt_token_ids"), json::value_from(streamed->requests()[0].prompt));
  EXPECT_EQ(events(streamed->part(0, {.tokens = {5}})).at(0).at("choices").at(0).at("token_ids"),
            json_of("[5]"));
}

TEST_F(Calls, the_best_answers_of_many_come_first) {
  const auto call = parsed(parse_completion, R"({"prompt": "a", "n": 2, "best_of": 3})");
  const auto answer = [&](uint32_t choice, std::string text, float logprob) {
    api::AnswerPart part = ended(choice, std::move(text), ending_of(api::EndReason::kLength, 2));
    part.tokens = {3, 4};
    part.details = {{logprob, {}}, {logprob, {}}};
    call->part(0, part);
  };
  answer(0, "worst", -3.0F);
  answer(1, "good", -1.0F);
  answer(2, "best", -0.5F);
  const json::value body = whole(*call);
  const json::array& choices = body.at("choices").as_array();
  ASSERT_THAT(choices, SizeIs(2));
  EXPECT_EQ(choices[0].at("text"), "best");
  EXPECT_EQ(choices[0].at("index"), 0);
  EXPECT_EQ(choices[1].at("text"), "good");
  EXPECT_EQ(choices[1].at("index"), 1);
  EXPECT_TRUE(choices[0].at("logprobs").is_null());
  EXPECT_EQ(body.at("usage").at("completion_tokens"), 6);
}

TEST_F(Calls, a_whole_llama_completion) {
  const auto call = parsed(parse_llama_completion,
                           R"({"prompt": "ab", "n_probs": 2, "return_tokens": true, "seed": -5,
                               "n_predict": 9, "stop": ["END"], "temperature": 0.5})");
  call->part(0, two_tokens());
  api::Ending ending = ending_of(api::EndReason::kStop, 2);
  ending.stopped_by = std::string("END");
  call->part(0, ended(0, "", ending));
  EXPECT_EQ(whole(*call), with(R"("index": 0, "content": "ab", "tokens": [67, 68], "stop": true,
      "tokens_predicted": 2, "tokens_evaluated": 2, "model": "tiny",
      "system_fingerprint": "fp_test", "stop_type": "word", "stopping_word": "END",
      "truncated": false, "tokens_cached": 4,
      "generation_settings": {"n_predict": 9, "seed": -5, "temperature": 0.5, "top_k": 40,
        "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.0, "presence_penalty": 0.0,
        "frequency_penalty": 0.0, "stop": ["END"], "ignore_eos": false, "n_probs": 2,
        "stream": false},
      "completion_probabilities": [
        {"id": 67, "token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": [
          {"id": 67, "token": "a", "logprob": -0.5, "bytes": [97]},
          {"id": 68, "token": "b", "logprob": -1.5, "bytes": [98]}]},
        {"id": 68, "token": "b", "logprob": -0.25, "bytes": [98], "top_logprobs": [
          {"id": 67, "token": "a", "logprob": -0.125, "bytes": [97]},
          {"id": 68, "token": "b", "logprob": -0.25, "bytes": [98]}]}])",
                               kTimings));
}

TEST_F(Calls, several_llama_prompts_have_a_list_of_answers) {
  const auto call = parsed(parse_llama_completion, R"({"prompt": ["a", "b"]})");
  call->part(1, ended(0, "second", ending_of(api::EndReason::kLength, 2)));
  call->part(0, ended(0, "first", ending_of(api::EndReason::kStop, 2)));
  const json::value body = json_of(call->whole().body);
  ASSERT_THAT(body.as_array(), SizeIs(2));
  EXPECT_EQ(body.at(0).at("content"), "first");
  EXPECT_EQ(body.at(0).at("stop_type"), "eos");
  EXPECT_EQ(body.at(1).at("content"), "second");
  EXPECT_EQ(body.at(1).at("index"), 1);
  EXPECT_EQ(body.at(1).at("stop_type"), "limit");
}

TEST_F(Calls, response_fields_are_unnested) {
  const auto call = parsed(parse_infill, R"({"input_prefix": "a", "response_fields": ["content",
      "timings/prompt_n", "generation_settings/stream", "truncated", "nothing", "timings/nothing",
      "content/nothing", "/"]})");
  call->part(0, ended(0, "x", ending_of(api::EndReason::kLength, 2)));
  EXPECT_EQ(whole(*call), json_of(R"({"content": "x", "timings/prompt_n": 6,
      "generation_settings/stream": false, "truncated": false})"));
}

TEST_F(Calls, the_field_without_a_name_is_none) {
  const auto call = parsed(parse_infill, R"({"input_prefix": "a", "response_fields": [""]})");
  call->part(0, ended(0, "x", ending_of(api::EndReason::kLength, 2)));
  EXPECT_EQ(whole(*call), json_of("{}"));
}

TEST_F(Calls, a_shortened_infill_says_so) {
  const auto call = parsed(
      parse_infill, R"({"input_prefix": ")" + std::string(2000, 'a') + R"(", "n_predict": 9})");
  call->part(0, ended(0, "x", ending_of(api::EndReason::kLength, 2)));
  EXPECT_EQ(whole(*call).at("truncated"), true);
}

TEST_F(Calls, a_streamed_llama_completion_ends_without_a_mark) {
  const auto call = parsed(parse_llama_completion,
                           R"({"prompt": "ab", "stream": true, "return_tokens": true,
                               "response_fields": ["content", "stop", "stop_type"]})");
  EXPECT_EQ(call->begin(), "");
  EXPECT_THAT(events(call->part(0, {.text = "a", .tokens = {67}})),
              ElementsAre(json_of(R"({"index": 0, "content": "a", "tokens": [67], "stop": false,
                                      "tokens_predicted": 1, "tokens_evaluated": 2})")));
  EXPECT_THAT(events(call->part(0, {.choice = 0,
                                    .text = "b",
                                    .tokens = {68},
                                    .ending = ending_of(api::EndReason::kLength, 2)})),
              ElementsAre(json_of(R"({"index": 0, "content": "b", "tokens": [68], "stop": false,
                                      "tokens_predicted": 2, "tokens_evaluated": 2})"),
                          json_of(R"({"content": "", "stop": true, "stop_type": "limit"})")));
  EXPECT_EQ(call->end(), "");
}

TEST_F(Calls, a_failure_is_the_answer_of_the_whole_call) {
  const struct {
    api::EndReason reason;
    unsigned status;
    const char* code;
  } cases[] = {{api::EndReason::kModelFailed, 500, "model_failed"},
               {api::EndReason::kDeadline, 504, "timeout"},
               {api::EndReason::kCancelled, 503, "cancelled"}};
  for (const auto& c : cases) {
    const auto call = chat(R"(, "n": 2)");
    call->part(0, ended(0, "text", ending_of(api::EndReason::kStop, 2)));
    EXPECT_FALSE(call->failed());
    call->part(0, ended(1, "text", ending_of(c.reason, 2)));
    EXPECT_TRUE(call->failed());
    const http::Response response = call->whole();
    EXPECT_EQ(response.status, c.status);
    EXPECT_EQ(json_of(response.body).at("error").at("code"), c.code);
    EXPECT_EQ(json_of(response.body).at("error").at("type"), "server_error");
  }
}

TEST_F(Calls, a_failure_in_a_stream_is_its_last_event) {
  for (const Parse parse : {parse_completion, parse_llama_completion}) {
    const auto call = parsed(parse, R"({"prompt": ["a", "b"], "stream": true})");
    call->part(0, {.text = "x"});
    const auto last = events(call->part(0, ended(0, "y", ending_of(api::EndReason::kDeadline, 1))));
    ASSERT_THAT(last, SizeIs(1));
    EXPECT_EQ(last[0].at("error").at("code"), "timeout");
    EXPECT_EQ(call->part(1, {.text = "z"}), "");
    EXPECT_EQ(call->part(1, ended(0, "z", ending_of(api::EndReason::kStop, 1))), "");
    EXPECT_EQ(call->end(), "");
  }
}

TEST_F(Calls, an_answer_that_never_began_has_timings_without_infinities) {
  const auto call = chat(R"(, "max_tokens": 0)");
  api::Ending ending{.reason = api::EndReason::kLength};
  call->part(0, ended(0, "", ending));
  const json::value body = whole(*call);
  for (const json::key_value_pair& entry : body.at("timings").as_object()) {
    EXPECT_EQ(entry.value().to_number<double>(), 0.0) << std::string(entry.key());
  }
}

}  // namespace
}  // namespace kvasir::serve
