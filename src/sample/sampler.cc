#include "sample/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/check.h"
#include "base/math.h"

namespace kvasir::sample {
namespace {

// log of the sum of exp(logit). NaN where a logit is NaN: a broken model, not a bug of ours.
double log_sum_exp(const kernels::SoftmaxStats& stats) {
  const double sum = stats.sum_exp;
  if (!(sum > 0.0) || !std::isfinite(sum)) return std::nan("");
  return double{stats.max} + base::log_exact(sum);
}

}  // namespace

Sampler::Sampler(uint32_t vocab_size, const kernels::KernelTable& kernels)
    : vocab_size_(vocab_size),
      kernels_(kernels),
      adjusted_(vocab_size),
      candidates_(vocab_size),
      probabilities_(vocab_size),
      answer_counts_(vocab_size),
      seen_(vocab_size) {
  CHECK(vocab_size > 0);
}

std::optional<TokenId> Sampler::choose(std::span<const float> logits, const SamplingParams& params,
                                       const History& history) {
  CHECK(logits.size() == vocab_size_);
  const bool plain = params.greedy() && !params.changes_logits() && history.banned.empty();
  if (!plain) {
    std::copy(logits.begin(), logits.end(), adjusted_.begin());
    apply_bias_and_penalties(adjusted_, params, history);
    for (const TokenId token : history.banned) {
      adjusted_[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
    }
    logits = adjusted_;
  }
  const size_t best = kernels_.arg_max(logits);
  if (!std::isfinite(logits[best])) return std::nullopt;
  if (params.greedy()) return static_cast<TokenId>(best);
  const double unit =
      base::random_unit({.seed = params.seed, .choice = history.choice}, history.tokens.size());
  return draw(adjusted_, params, unit, logits[best]);
}

// Bias first, so that a penalty never undoes a ban. The repetition penalty divides positive and
// multiplies negative logits; the other two subtract.
void Sampler::apply_bias_and_penalties(std::span<float> logits, const SamplingParams& params,
                                       const History& history) {
  if (!params.changes_logits()) return;
  for (const LogitBias& entry : params.logit_bias) {
    logits[static_cast<size_t>(entry.token)] += entry.bias;
  }
  const std::span<const TokenId> answer = history.tokens.subspan(history.prompt_tokens);
  for (const TokenId token : answer) ++answer_counts_[static_cast<size_t>(token)];
  for (const TokenId token : history.tokens) {
    const auto id = static_cast<size_t>(token);
    if (seen_[id] != 0) continue;
    seen_[id] = 1;
    float& logit = logits[id];
    logit = logit > 0.0F ? logit / params.repetition_penalty : logit * params.repetition_penalty;
    if (answer_counts_[id] == 0) continue;
    logit -= params.presence_penalty;
    logit -= params.frequency_penalty * static_cast<float>(answer_counts_[id]);
  }
  for (const TokenId token : history.tokens) {
    seen_[static_cast<size_t>(token)] = 0;
    answer_counts_[static_cast<size_t>(token)] = 0;
  }
}

// Inverse-transform sampling over the candidates that the filters leave.
TokenId Sampler::draw(std::span<float> logits, const SamplingParams& params, double unit,
                      float max) {
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = (logits[i] - max) / params.temperature;
  }
  kernels_.exp(logits, probabilities_);

  size_t count = vocab_size_;
  for (size_t i = 0; i < count; ++i) candidates_[i] = static_cast<TokenId>(i);
  if (params.top_k > 0 && params.top_k < count) count = keep_top_k(logits, count, params.top_k);
  if (params.min_p > 0.0F) {  // the best token's probability is exp(0) = 1
    const auto end = std::remove_if(
        candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(count),
        [&](TokenId id) { return !(probabilities_[static_cast<size_t>(id)] >= params.min_p); });
    count = static_cast<size_t>(end - candidates_.begin());
  }
  if (params.top_p < 1.0F) count = keep_top_p(logits, count, params.top_p);

  double total = 0.0;
  for (size_t i = 0; i < count; ++i) {
    total += double{probabilities_[static_cast<size_t>(candidates_[i])]};
  }
  double left = unit * total;
  TokenId chosen = candidates_[0];
  for (size_t i = 0; i < count; ++i) {
    const double probability = probabilities_[static_cast<size_t>(candidates_[i])];
    if (!(probability > 0.0)) continue;
    chosen = candidates_[i];  // the last possible one, should rounding leave a remainder
    left -= probability;
    if (left < 0.0) break;
  }
  return chosen;
}

// The first `front` candidates become the best ones, in order.
void Sampler::sort_front(std::span<const float> logits, size_t count, size_t front) {
  const auto better = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    // NaN counts as the worst, so that this is a strict weak order.
    const bool x_is_nan = std::isnan(x);
    const bool y_is_nan = std::isnan(y);
    if (x_is_nan || y_is_nan) return x_is_nan == y_is_nan ? a < b : y_is_nan;
    return x > y || (x == y && a < b);
  };
  const auto begin = candidates_.begin();
  const auto middle = begin + static_cast<ptrdiff_t>(front);
  const auto end = begin + static_cast<ptrdiff_t>(count);
  if (front < count) std::nth_element(begin, middle, end, better);
  std::sort(begin, middle, better);
}

size_t Sampler::keep_top_k(std::span<const float> logits, size_t count, size_t top_k) {
  sort_front(logits, count, top_k);
  return top_k;
}

// The smallest set of best candidates whose share of the candidates' probability is >= top_p
// (Holtzman et al., arXiv:1904.09751). Few are usually enough, so few are sorted at first.
size_t Sampler::keep_top_p(std::span<const float> logits, size_t count, float top_p) {
  constexpr size_t kFirstFront = 128;
  double total = 0.0;
  for (size_t i = 0; i < count; ++i) {
    total += double{probabilities_[static_cast<size_t>(candidates_[i])]};
  }
  const double wanted = total * double{top_p};
  for (size_t front = std::min(kFirstFront, count);; front = std::min(front * 8, count)) {
    sort_front(logits, count, front);
    double sum = 0.0;
    for (size_t i = 0; i < front; ++i) {
      sum += double{probabilities_[static_cast<size_t>(candidates_[i])]};
      if (sum >= wanted) return i + 1;
    }
    if (front == count) return count;
  }
}

float Sampler::logprob_of(std::span<const float> logits, TokenId token) const {
  const double log_sum = log_sum_exp(kernels_.softmax_stats(logits));
  return static_cast<float>(double{logits[static_cast<size_t>(token)]} - log_sum);
}

size_t Sampler::top_logprobs(std::span<const float> logits, std::span<TokenLogprob> out) {
  const size_t count = std::min(out.size(), logits.size());
  if (count == 0) return 0;
  for (size_t i = 0; i < logits.size(); ++i) candidates_[i] = static_cast<TokenId>(i);
  sort_front(logits, logits.size(), count);
  const double log_sum = log_sum_exp(kernels_.softmax_stats(logits));
  for (size_t i = 0; i < count; ++i) {
    const double logit = logits[static_cast<size_t>(candidates_[i])];
    out[i] = {candidates_[i], static_cast<float>(logit - log_sum)};
  }
  return count;
}

}  // namespace kvasir::sample
