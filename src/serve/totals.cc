#include "serve/totals.h"

#include <algorithm>

namespace kvasir::serve {
namespace {

double elapsed_ms(uint64_t from_us, uint64_t to_us) {
  return to_us <= from_us ? 0.0 : static_cast<double>(to_us - from_us) / 1000.0;
}

double per_token(double ms, uint64_t count) {
  return count == 0 ? 0.0 : ms / static_cast<double>(count);
}

double per_second(uint64_t count, double ms) {
  return ms == 0.0 ? 0.0 : static_cast<double>(count) * 1000.0 / ms;
}

}  // namespace

void Totals::add(const engine::RequestStats& stats, bool first) {
  if (first) {
    prompt_tokens_ += stats.prompt_tokens;
    tokens_cached_ += stats.tokens_cached;
  }
  tokens_generated_ += stats.tokens_generated;
  begin_us_ = std::min(begin_us_, stats.admitted_us.value_or(stats.submitted_us));
  first_token_us_ = std::min(first_token_us_, stats.first_token_us);
  prompts_done_us_ = std::max(prompts_done_us_, stats.first_token_us);
  end_us_ = std::max(end_us_, stats.finished_us);
}

boost::json::object Totals::usage() const {
  return {{"prompt_tokens", prompt_tokens_},
          {"completion_tokens", tokens_generated_},
          {"total_tokens", prompt_tokens_ + tokens_generated_},
          {"prompt_tokens_details", {{"cached_tokens", tokens_cached_}}},
          {"completion_tokens_details", {{"reasoning_tokens", 0}}}};
}

boost::json::object Totals::timings() const {
  const uint64_t computed = prompt_tokens_ - tokens_cached_;
  const double prompt_ms = elapsed_ms(begin_us_, prompts_done_us_);
  const double answer_ms = elapsed_ms(first_token_us_, end_us_);
  return {{"cache_n", tokens_cached_},
          {"prompt_n", computed},
          {"prompt_ms", prompt_ms},
          {"prompt_per_token_ms", per_token(prompt_ms, computed)},
          {"prompt_per_second", per_second(computed, prompt_ms)},
          {"predicted_n", tokens_generated_},
          {"predicted_ms", answer_ms},
          {"predicted_per_token_ms", per_token(answer_ms, tokens_generated_)},
          {"predicted_per_second", per_second(tokens_generated_, answer_ms)}};
}

}  // namespace kvasir::serve
