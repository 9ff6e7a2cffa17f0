// However an answer is cut into parts and however the choices interleave: what is streamed adds up
// to what the whole answer says.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>

#include "api/token_text.h"
#include "serve/testing.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

using testing::ending_of;
using testing::events_of;
using testing::json_of;
using testing::request_of;
using testing::TestModel;

namespace json = boost::json;
using Random = std::mt19937_64;
using Parse = ApiResult<std::unique_ptr<Call>> (*)(const ModelInfo&, const http::Request&);

size_t below(Random& random, size_t end) {
  return static_cast<size_t>(random() % end);
}

// A whole answer, as it is known when it has ended.
struct Script {
  size_t request = 0;
  uint32_t choice = 0;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<api::TokenDetail> details;
};

api::TokenDetail random_detail(Random& random, size_t vocab_size, size_t alternatives) {
  const auto logprob = [&] { return -static_cast<float>(below(random, 4096)) / 256.0F; };
  api::TokenDetail detail{.logprob = logprob()};
  for (size_t i = 0; i < alternatives; ++i) {
    detail.top.push_back({static_cast<TokenId>(below(random, vocab_size)), logprob()});
  }
  return detail;
}

Script random_script(Random& random, const TestModel& model, size_t request, uint32_t choice) {
  Script script{.request = request, .choice = choice};
  const size_t vocab_size = model.info.vocab_size();
  text::Detokenizer detokenizer(*model.tokenizer, /*at_start=*/false);
  for (size_t count = below(random, 30); count > 0; --count) {
    const auto token = static_cast<TokenId>(below(random, vocab_size));
    script.tokens.push_back(token);
    script.details.push_back(random_detail(random, vocab_size, 3));
    script.text += detokenizer.push(token);
  }
  script.text += detokenizer.finish();
  return script;
}

// The script in random parts. Text may lag behind tokens but is cut between characters only.
std::vector<api::AnswerPart> cut(Random& random, const Script& script, bool with_details) {
  std::vector<api::AnswerPart> parts;
  size_t text_at = 0;
  size_t token_at = 0;
  while (text_at < script.text.size() || token_at < script.tokens.size()) {
    api::AnswerPart part{.choice = script.choice};
    size_t end = std::min(script.text.size(), text_at + below(random, 6));
    while (broken_utf8_at(script.text.substr(text_at, end - text_at))) ++end;
    part.text = script.text.substr(text_at, end - text_at);
    text_at = end;
    for (size_t i = below(random, 4); i > 0 && token_at < script.tokens.size(); --i, ++token_at) {
      part.tokens.push_back(script.tokens[token_at]);
      if (with_details) part.details.push_back(script.details[token_at]);
    }
    parts.push_back(std::move(part));
  }
  if (parts.empty() || below(random, 2) == 0) parts.push_back({.choice = script.choice});
  const bool by_length = script.tokens.size() % 2 == 0;
  parts.back().ending = ending_of(by_length ? api::EndReason::kLength : api::EndReason::kStop,
                                  static_cast<uint32_t>(script.tokens.size()));
  return parts;
}

// Plays all scripts to a call; returns what it streamed.
std::string play(Random& random, Call& call, const std::vector<Script>& scripts,
                 const std::vector<std::vector<api::TokenDetail>>& scores) {
  std::string stream = call.begin();
  std::vector<std::vector<api::AnswerPart>> parts;
  for (size_t i = 0; i < call.requests().size(); ++i) {
    if (!call.requests()[i].score_prompt) continue;
    for (size_t j = 0; j + 1 < call.requests()[i].prompt.size(); ++j) {
      call.score(i, {.position = static_cast<uint32_t>(j + 1), .detail = scores[i][j]});
    }
  }
  for (const Script& script : scripts) {
    parts.push_back(cut(random, script, call.requests()[script.request].logprobs));
    std::ranges::reverse(parts.back());
  }
  std::vector<size_t> open(scripts.size());
  for (size_t i = 0; i < open.size(); ++i) open[i] = i;
  while (!open.empty()) {
    const size_t pick = below(random, open.size());
    auto& rest = parts[open[pick]];
    stream += call.part(scripts[open[pick]].request, rest.back());
    rest.pop_back();
    if (rest.empty()) open.erase(open.begin() + static_cast<std::ptrdiff_t>(pick));
  }
  return stream + call.end();
}

void append(json::array& target, const json::value& more) {
  for (const json::value& entry : more.as_array()) target.push_back(entry);
}

// What a client has put together from OpenAI's events, in the form of the whole answer's choices.
struct Collected {
  std::map<int64_t, json::object> choices;
  json::value usage;
  json::value timings;
  bool done = false;

  void add(const std::string& event) {
    EXPECT_FALSE(done);
    EXPECT_EQ(broken_utf8_at(event), std::nullopt);
    if (event == "[DONE]") {
      done = true;
      return;
    }
    const json::object body = json_of(event).as_object();
    if (const json::value* value = body.if_contains("usage"); value && !value->is_null()) {
      usage = *value;
    }
    if (const json::value* value = body.if_contains("timings")) timings = *value;
    for (const json::value& choice : body.at("choices").as_array()) add(choice.as_object());
  }

  void add(const json::object& choice) {
    json::object& whole = choices[choice.at("index").as_int64()];
    if (whole.empty()) whole = {{"text", ""}, {"logprobs", nullptr}, {"finish_reason", nullptr}};
    EXPECT_TRUE(whole.at("finish_reason").is_null()) << "more after the end";
    const json::value* text = choice.if_contains("text");
    if (const json::value* delta = choice.if_contains("delta")) {
      text = delta->as_object().if_contains("content");
    }
    if (text != nullptr) {
      whole["text"] = std::string(whole["text"].as_string()) + std::string(text->as_string());
    }
    if (!choice.at("logprobs").is_null()) add_logprobs(whole["logprobs"], choice.at("logprobs"));
    whole["finish_reason"] = choice.at("finish_reason");
  }

  static void add_logprobs(json::value& whole, const json::value& more) {
    if (whole.is_null()) {
      whole = more;
      return;
    }
    for (json::key_value_pair& entry : whole.as_object()) {
      if (entry.value().is_array()) append(entry.value().as_array(), more.at(entry.key()));
    }
  }
};

// An object of the whole answer's "choices" in the form that Collected has.
json::object collected_form(const json::value& choice) {
  const json::object& object = choice.as_object();
  const json::value* message = object.if_contains("message");
  return {{"text", message != nullptr ? message->at("content") : object.at("text")},
          {"logprobs", object.at("logprobs")},
          {"finish_reason", object.at("finish_reason")}};
}

class Streaming : public ::testing::TestWithParam<int> {
 protected:
  std::unique_ptr<Call> parsed(Parse parse, const std::string& body) {
    auto call = parse(model_->info, request_of(body));
    EXPECT_TRUE(call.has_value()) << body << ": " << call.error().message;
    return *std::move(call);
  }

  // The same request as a stream and as a whole, fed with the same answers cut differently.
  void play_both(Parse parse, const std::string& fields, const std::string& stream_fields = {}) {
    streamed_ = parsed(parse, "{" + fields + R"(, "stream": true)" + stream_fields + "}");
    whole_ = parsed(parse, "{" + fields + "}");
    std::vector<Script> scripts;
    std::vector<std::vector<api::TokenDetail>> scores;
    for (size_t i = 0; i < whole_->requests().size(); ++i) {
      const api::GenerateRequest& request = whole_->requests()[i];
      for (uint32_t choice = 0; choice < request.choices; ++choice) {
        scripts.push_back(random_script(random_, *model_, i, choice));
      }
      scores.emplace_back();
      for (size_t j = 0; j < request.prompt.size(); ++j) {
        scores.back().push_back(random_detail(random_, model_->info.vocab_size(), 3));
      }
    }
    stream_ = play(random_, *streamed_, scripts, scores);
    EXPECT_EQ(play(random_, *whole_, scripts, scores), "");
    const http::Response response = whole_->whole();
    EXPECT_EQ(broken_utf8_at(response.body), std::nullopt);
    body_ = json_of(response.body);
  }

  void expect_same_openai_answers(bool with_usage) {
    Collected collected;
    for (const std::string& event : events_of(stream_)) collected.add(event);
    EXPECT_TRUE(collected.done);
    const json::array& choices = body_.at("choices").as_array();
    ASSERT_EQ(collected.choices.size(), choices.size());
    for (size_t i = 0; i < choices.size(); ++i) {
      json::object expected = collected_form(choices[i]);
      json::object& actual = collected.choices[static_cast<int64_t>(i)];
      // An answer without tokens streams no empty lists.
      if (actual["logprobs"].is_null() && !expected["logprobs"].is_null()) {
        EXPECT_TRUE(expected["logprobs"].at("content").as_array().empty());
        expected["logprobs"] = nullptr;
      }
      EXPECT_EQ(json::value(actual), json::value(expected));
    }
    EXPECT_EQ(collected.timings, body_.at("timings"));
    EXPECT_EQ(collected.usage, with_usage ? body_.at("usage") : json::value());
  }

  std::unique_ptr<TestModel> model_ = testing::tiny_model();
  Random random_{static_cast<uint64_t>(GetParam())};
  std::unique_ptr<Call> streamed_;
  std::unique_ptr<Call> whole_;
  std::string stream_;
  json::value body_;
};

TEST_P(Streaming, of_chat_adds_up_to_the_whole) {
  SCOPED_TRACE(::testing::Message() << "seed " << GetParam());
  const bool with_usage = below(random_, 2) == 0;
  const bool with_logprobs = below(random_, 2) == 0;
  std::string fields = R"("messages": [{"role": "user", "content": "hi"}], "n": )" +
                       std::to_string(1 + below(random_, 3));
  if (with_logprobs) fields += R"(, "logprobs": true, "top_logprobs": 3)";
  play_both(parse_chat, fields, with_usage ? R"(, "stream_options": {"include_usage": true})" : "");
  expect_same_openai_answers(with_usage);
}

TEST_P(Streaming, of_completions_adds_up_to_the_whole) {
  SCOPED_TRACE(::testing::Message() << "seed " << GetParam());
  std::string fields = R"("prompt": ["one \u00e9", [130, 105, 5], "\ud83d\ude00"], "n": )" +
                       std::to_string(1 + below(random_, 3));
  if (below(random_, 2) == 0) fields += R"(, "echo": true)";
  if (below(random_, 2) == 0) fields += R"(, "logprobs": 3)";
  play_both(parse_completion, fields);
  expect_same_openai_answers(false);
}

TEST_P(Streaming, of_llama_completions_adds_up_to_the_whole) {
  SCOPED_TRACE(::testing::Message() << "seed " << GetParam());
  play_both(parse_llama_completion,
            R"("prompt": ["a", "b"], "seed": 1, "n_probs": 3, "return_tokens": true)");
  std::map<int64_t, json::object> answers;
  for (const std::string& event : events_of(stream_)) {
    EXPECT_EQ(broken_utf8_at(event), std::nullopt);
    json::object piece = json_of(event).as_object();
    json::object& answer = answers[piece["index"].as_int64()];
    const std::string before = answer.empty() ? "" : std::string(answer["content"].as_string());
    json::array tokens = answer.empty() ? json::array() : answer["tokens"].as_array();
    json::array probabilities =
        answer.empty() ? json::array() : answer["completion_probabilities"].as_array();
    append(tokens, piece["tokens"]);
    if (const json::value* more = piece.if_contains("completion_probabilities")) {
      append(probabilities, *more);
    }
    piece["content"] = before + std::string(piece["content"].as_string());
    piece["tokens"] = std::move(tokens);
    piece["completion_probabilities"] = std::move(probabilities);
    answer = std::move(piece);
  }
  ASSERT_EQ(answers.size(), 2U);
  for (int64_t i = 0; i < 2; ++i) {
    answers[i]["generation_settings"].at("stream") = false;
    EXPECT_EQ(json::value(answers[i]), body_.at(static_cast<size_t>(i)));
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, Streaming, ::testing::Range(1, 41));

}  // namespace
}  // namespace kvasir::serve
