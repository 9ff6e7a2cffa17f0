#include "api/run.h"

#include <algorithm>
#include <utility>

namespace kvasir::api {
namespace {

EndReason end_reason(engine::FinishReason reason) {
  switch (reason) {
    case engine::FinishReason::kStop:
      return EndReason::kStop;
    case engine::FinishReason::kLength:
      return EndReason::kLength;
    case engine::FinishReason::kModelFailed:
      return EndReason::kModelFailed;
  }
  return EndReason::kModelFailed;
}

}  // namespace

base::Status Llm::Run::add(const GenerateRequest& request) {
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return base::bad_input("a stop string is empty; give at least one character");
  }
  if (request.max_tokens == 0) return base::bad_input("0 tokens to generate; ask for at least 1");
  engine::Request checked{.tokens = request.prompt,
                          .max_tokens = request.max_tokens,
                          .sampling = request.sampling,
                          .logprobs = request.logprobs,
                          .top_logprobs = request.top_logprobs,
                          .conversation = request.conversation,
                          .digest_logits = request.digest_logits};
  if (!request.ignore_eos) checked.end_tokens = tokenizer_.vocab().end_of_generation;
  RETURN_IF_ERROR(engine_.check(checked));
  prompt_tokens_ += checked.tokens.size();
  streams_.push_back({.request = std::move(checked),
                      .wants_details = request.logprobs,
                      .detokenizer = text::Detokenizer(tokenizer_, /*at_start=*/false),
                      .stops = StopMatcher(request.stop)});
  return {};
}

std::vector<Completion> Llm::Run::finish_all() {
  prompt_tokens_before_ = engine_.stats().prompt_tokens_computed;
  while (submitted_ < streams_.size() || !running_.empty()) {
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
  while (submitted_ < streams_.size()) {
    if (!engine_.can_submit(streams_[submitted_].request)) return;
    running_.emplace(engine_.submit(std::move(streams_[submitted_].request)), submitted_);
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
  return engine_.stats().prompt_tokens_computed - prompt_tokens_before_;
}

void Llm::Run::handle(const engine::Event& event) {
  const auto at = running_.find(event.sequence);
  if (at == running_.end()) return;  // ended by a stop string earlier in this step
  const size_t index = at->second;
  if (event.kind == engine::Event::Kind::kToken) take_token(index, event);
  if (event.kind == engine::Event::Kind::kFinished) {
    running_.erase(event.sequence);
    end(index, end_reason(event.finish), *event.stats);
  }
}

void Llm::Run::take_token(size_t index, const engine::Event& event) {
  Stream& stream = streams_[index];
  stream.completion.tokens.push_back(event.token);
  if (stream.wants_details) {
    stream.completion.details.push_back(
        {event.logprob, {event.top.begin(), event.top.begin() + event.top_count}});
  }
  emit(index, stream.stops.push(stream.detokenizer.push(event.token)));
  if (!stream.stops.matched()) return;
  running_.erase(event.sequence);
  const engine::RequestStats* stats = engine_.cancel(event.sequence);
  // nullptr: the engine ended it with this very token; its statistics follow in the same outbox.
  if (stats == nullptr) {
    running_.emplace(event.sequence, index);
    return;
  }
  end(index, EndReason::kStop, *stats);
}

void Llm::Run::end(size_t index, EndReason reason, const engine::RequestStats& stats) {
  Stream& stream = streams_[index];
  emit(index, stream.stops.push(stream.detokenizer.finish()));
  emit(index, stream.stops.finish());
  stream.completion.reason = stream.stops.matched() ? EndReason::kStop : reason;
  stream.completion.stats = stats;
}

void Llm::Run::emit(size_t index, std::string_view text) {
  if (text.empty()) return;
  streams_[index].completion.text += text;
  if (hooks_.on_text) hooks_.on_text(index, text);
}

void Llm::Run::cancel_all() {
  for (const auto& [id, index] : running_) {
    const engine::RequestStats* stats = engine_.cancel(id);
    CHECK(stats != nullptr);
    end(index, EndReason::kCancelled, *stats);
  }
  running_.clear();
  for (size_t i = submitted_; i < streams_.size(); ++i) {
    streams_[i].completion.reason = EndReason::kCancelled;
  }
}

}  // namespace kvasir::api
