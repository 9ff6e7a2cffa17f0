#include "api/run.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace kvasir::api {
base::Status Llm::Run::add(const GenerateRequest& request) {
  RETURN_IF_ERROR(check_request(request));
  if (request.max_tokens == 0) return base::bad_input("0 tokens to generate; ask for at least 1");
  engine::Request checked = engine_request(request, tokenizer_.vocab().end_of_generation);
  RETURN_IF_ERROR(engine_.check(checked));
  prompt_tokens_ += checked.tokens.size();
  requests_.push_back({std::move(checked), streams_.size()});
  for (uint32_t choice = 0; choice < std::max(request.choices, request.beams); ++choice) {
    streams_.push_back({.answer = AnswerStream(tokenizer_, request, choice),
                        .completion = {.request = requests_.size() - 1, .choice = choice}});
  }
  return {};
}

std::vector<Completion> Llm::Run::finish_all() {
  prompt_tokens_before_ = engine_.prompt_tokens_computed();
  while (submitted_ < requests_.size() || streams_open_ > 0) {
    if (hooks_.cancelled && hooks_.cancelled()) {
      cancel_all();
      break;
    }
    submit_waiting();
    step();
  }
  std::vector<Completion> completions;
  completions.reserve(streams_.size());
  for (Stream& stream : streams_) completions.push_back(std::move(stream.completion));
  return completions;
}

void Llm::Run::submit_waiting() {
  while (submitted_ < requests_.size()) {
    Pending& next = requests_[submitted_];
    if (!engine_.can_submit(next.request)) return;
    streams_open_ += std::max(next.request.choices, next.request.beams);
    running_.emplace(engine_.submit(std::move(next.request)), next.first_stream);
    ++submitted_;
  }
}

void Llm::Run::step() {
  const uint64_t before = prompt_tokens_computed();
  for (const engine::Event& event : engine_.step()) handle(event);
  const uint64_t computed = prompt_tokens_computed();
  if (hooks_.on_prefill && computed > before && computed < prompt_tokens_) {
    hooks_.on_prefill(computed, prompt_tokens_);
  }
}

uint64_t Llm::Run::prompt_tokens_computed() const {
  return engine_.prompt_tokens_computed() - prompt_tokens_before_;
}

void Llm::Run::handle(const engine::Event& event) {
  const size_t index = running_.at(event.sequence) + event.choice;
  if (streams_[index].answer.ended()) return;  // by a stop string earlier in this step
  if (event.kind == engine::Event::Kind::kToken) take_token(index, event);
  if (event.kind == engine::Event::Kind::kAnswer) take_answer(index, event);
  if (event.kind == engine::Event::Kind::kFinished) {
    end(index, end_reason(event.finish), *event.stats);
  }
}

void Llm::Run::take_token(size_t index, const engine::Event& event) {
  AnswerStream& answer = streams_[index].answer;
  answer.push(event);
  take_news(index);
  if (!answer.stopped()) return;
  const engine::RequestStats* stats = engine_.cancel(event.sequence, event.choice);
  // nullptr: the engine ended it with this very token; its statistics follow in the same outbox.
  if (stats != nullptr) end(index, EndReason::kStop, *stats);
}

// A whole answer of a beam search; a stop string cuts its text.
void Llm::Run::take_answer(size_t index, const engine::Event& event) {
  streams_[index].completion.score = event.score;
  for (const TokenId token : event.answer) {
    streams_[index].answer.push(token);
    take_news(index);
  }
}

void Llm::Run::end(size_t index, EndReason reason, const engine::RequestStats& stats) {
  streams_[index].answer.end(reason, stats);
  take_news(index);
  --streams_open_;
}

void Llm::Run::take_news(size_t index) {
  AnswerPart part = streams_[index].answer.take();
  Completion& completion = streams_[index].completion;
  completion.tokens.insert(completion.tokens.end(), part.tokens.begin(), part.tokens.end());
  completion.details.insert(completion.details.end(), std::make_move_iterator(part.details.begin()),
                            std::make_move_iterator(part.details.end()));
  if (part.ending) {
    completion.reason = part.ending->reason;
    completion.stats = part.ending->stats;
  }
  if (part.text.empty()) return;
  completion.text += part.text;
  if (hooks_.on_text) hooks_.on_text(index, part.text);
}

void Llm::Run::cancel_all() {
  for (const auto& [id, first_stream] : running_) {
    for (size_t i = first_stream; i < streams_.size(); ++i) {
      if (streams_[i].completion.request != streams_[first_stream].completion.request) break;
      if (streams_[i].answer.ended()) continue;
      // A choice that has not begun yet has cost nothing so far.
      const engine::RequestStats* stats = engine_.cancel(id, streams_[i].completion.choice);
      end(i, EndReason::kCancelled, stats == nullptr ? engine::RequestStats{} : *stats);
    }
  }
  for (Stream& stream : streams_) {
    if (!stream.answer.ended()) stream.completion.reason = EndReason::kCancelled;
  }
}

}  // namespace kvasir::api
