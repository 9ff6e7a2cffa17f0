#include "serve/call.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// What an ending means for the whole call; nullopt: nothing bad.
std::optional<ApiError> failure_of(const api::Ending& ending) {
  switch (ending.reason) {
    case api::EndReason::kStop:
    case api::EndReason::kLength:
      return std::nullopt;
    case api::EndReason::kModelFailed:
      return ApiError{.status = 500,
                      .message = "The model computed no numbers; its file may be damaged.",
                      .code = "model_failed"};
    case api::EndReason::kDeadline:
      return ApiError{.status = 504,
                      .message =
                          "The answer was not complete before its deadline; ask for fewer "
                          "tokens or try again later.",
                      .code = "timeout"};
    case api::EndReason::kCancelled:
      return ApiError{.status = 503,
                      .message = "The request was cancelled because the server stops; try again.",
                      .code = "cancelled"};
  }
  return std::nullopt;
}

}  // namespace

Call::Call(Setup setup)
    : model_(setup.model),
      id_(std::move(setup.id)),
      parameters_(std::move(setup.parameters)),
      requests_(std::move(setup.requests)),
      scores_(requests_.size()) {
  for (size_t i = 0; i < requests_.size(); ++i) {
    for (uint32_t choice = 0; choice < requests_[i].choices; ++choice) {
      answers_.push_back({.request = i});
    }
  }
}

std::string Call::begin() {
  return streams() ? stream_begin() : std::string();
}

void Call::score(size_t request, const api::PromptScore& score) {
  CHECK(request < requests_.size() && requests_[request].score_prompt);
  CHECK(score.position == scores_[request].size() + 1);
  scores_[request].push_back(score.detail);
}

std::string Call::part(size_t request, const api::AnswerPart& part) {
  CHECK(request < requests_.size() && part.choice < requests_[request].choices);
  if (failure_) return {};
  // All requests have the same number of choices.
  const size_t index = request * requests_[request].choices + part.choice;
  Answer& answer = answers_[index];
  CHECK(!answer.ending);
  CHECK(!requests_[request].logprobs || part.details.size() == part.tokens.size());
  answer.ending = part.ending;
  answer.token_count += part.tokens.size();
  if (part.ending) failure_ = failure_of(*part.ending);
  if (failure_) return streams() ? "data: " + error_body(*failure_) + "\n\n" : std::string();
  if (streams()) return stream_part(index, part);
  answer.text += part.text;
  answer.tokens.insert(answer.tokens.end(), part.tokens.begin(), part.tokens.end());
  answer.details.insert(answer.details.end(), part.details.begin(), part.details.end());
  return {};
}

std::string Call::end() {
  return streams() && !failure_ ? stream_end() : std::string();
}

http::Response Call::whole() {
  if (failure_) return error_response(*failure_);
  CHECK(all_ended());
  return {.status = 200, .body = json::serialize(whole_body())};
}

bool Call::all_ended() const {
  return std::ranges::all_of(answers_,
                             [](const Answer& answer) { return answer.ending.has_value(); });
}

Totals Call::totals() const {
  Totals totals;
  const Answer* before = nullptr;
  for (const Answer& answer : answers_) {
    const bool first = before == nullptr || before->request != answer.request;
    if (answer.ending) totals.add(answer.ending->stats, first);
    before = &answer;
  }
  return totals;
}

std::string event_of(const json::value& value) {
  return "data: " + json::serialize(value) + "\n\n";
}

std::string_view finish_reason(const api::Ending& ending) {
  return ending.reason == api::EndReason::kLength ? "length" : "stop";
}

json::value stop_reason(const api::Ending& ending) {
  if (const auto* text = std::get_if<std::string>(&ending.stopped_by)) return json::value(*text);
  if (const auto* token = std::get_if<TokenId>(&ending.stopped_by)) return *token;
  return nullptr;
}

}  // namespace kvasir::serve
