#include "api/answer_stream.h"

#include <algorithm>
#include <utility>

namespace kvasir::api {

AnswerStream::AnswerStream(const text::Tokenizer& tokenizer, const GenerateRequest& request,
                           uint32_t choice)
    : stop_tokens_(request.stop_tokens),
      wants_details_(request.logprobs),
      keeps_stop_(request.keeps_stop),
      detokenizer_(tokenizer, /*at_start=*/false),
      stops_(request.stop),
      part_{.choice = choice} {}

void AnswerStream::push(const engine::Event& event) {
  if (stopped()) return;
  if (wants_details_) {
    part_.details.push_back(
        {event.logprob, {event.top.begin(), event.top.begin() + event.top_count}});
  }
  push(event.token);
}

void AnswerStream::push(TokenId token) {
  if (stopped()) return;
  part_.tokens.push_back(token);
  last_token_ = token;
  emit(detokenizer_.push(token));
}

void AnswerStream::emit(std::string_view text) {
  if (text.empty() || stopped()) return;
  part_.text += stops_.push(text);
  if (stopped() && keeps_stop_) part_.text += stops_.match();
}

void AnswerStream::end(EndReason reason, const engine::RequestStats& stats) {
  emit(detokenizer_.finish());
  part_.text += stops_.finish();
  part_.ending = Ending{.reason = stopped() ? EndReason::kStop : reason, .stats = stats};
  if (stopped()) {
    part_.ending->stopped_by = stops_.match();
  } else if (reason == EndReason::kStop && last_token_ &&
             std::ranges::find(stop_tokens_, *last_token_) != stop_tokens_.end()) {
    part_.ending->stopped_by = *last_token_;
  }
  ended_ = true;
}

AnswerPart AnswerStream::take() {
  return std::exchange(part_, {.choice = part_.choice});
}

engine::Request engine_request(const GenerateRequest& request,
                               const std::vector<TokenId>& end_of_generation) {
  engine::Request engine{.tokens = request.prompt,
                         .max_tokens = request.max_tokens,
                         .sampling = request.sampling,
                         .end_tokens = request.stop_tokens,
                         .min_tokens = request.min_tokens,
                         .choices = request.choices,
                         .beams = request.beams,
                         .score_prompt = request.score_prompt,
                         .logprobs = request.logprobs,
                         .top_logprobs = request.top_logprobs,
                         .digest_logits = request.digest_logits,
                         .domain = request.domain,
                         .reads_cache = request.reads_cache,
                         .retention = request.retention,
                         .retain_us = request.retain_us,
                         .priority = request.priority,
                         .tenant = request.tenant};
  if (!request.ignore_eos) {
    engine.end_tokens.insert(engine.end_tokens.end(), end_of_generation.begin(),
                             end_of_generation.end());
  }
  return engine;
}

base::Status check_request(const GenerateRequest& request) {
  for (const std::string& stop : request.stop) {
    if (stop.empty()) return base::bad_input("a stop string is empty; give at least one character");
  }
  return {};
}

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

}  // namespace kvasir::api
