#include "engine/beam.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::engine {

BeamSearch::BeamSearch(Settings settings) : settings_(std::move(settings)) {
  CHECK(settings_.width >= 1);
  CHECK(settings_.max_tokens >= 1);
  beams_.resize(settings_.width);
  for (Beam& beam : beams_) beam.offers.resize(offers());
  candidates_.reserve(size_t{settings_.width} * offers());
  ended_.reserve(settings_.width);
  next_.reserve(settings_.width);
  scores_.resize(settings_.width);
  hypotheses_.resize(settings_.width);
  for (Hypothesis& hypothesis : hypotheses_) hypothesis.tokens.reserve(settings_.max_tokens);
}

void BeamSearch::offer(uint32_t beam, std::span<const sample::TokenLogprob> offered) {
  CHECK(beam < live_);
  CHECK(!offered.empty());
  CHECK(offered.size() <= offers());
  std::ranges::copy(offered, beams_[beam].offers.begin());
  beams_[beam].offered = static_cast<uint32_t>(offered.size());
  beams_[beam].ready = true;
}

bool BeamSearch::ready() const {
  const auto live = std::span(beams_).first(live_);
  return !live.empty() && std::ranges::all_of(live, [](const Beam& beam) { return beam.ready; });
}

void BeamSearch::choose() {
  CHECK(ready());
  candidates_.clear();
  for (uint32_t b = 0; b < live_; ++b) {
    for (const sample::TokenLogprob& offer : std::span(beams_[b].offers).first(beams_[b].offered)) {
      candidates_.push_back({beams_[b].score + double{offer.logprob}, b, offer.token});
    }
  }
  std::ranges::sort(candidates_, [](const Candidate& a, const Candidate& b) {
    if (a.score != b.score) return a.score > b.score;
    return a.beam != b.beam ? a.beam < b.beam : a.token < b.token;
  });
  next_.clear();
  ended_.clear();
  for (uint32_t rank = 0; rank < candidates_.size() && next_.size() < settings_.width; ++rank) {
    const Candidate& candidate = candidates_[rank];
    if (std::ranges::find(settings_.end_tokens, candidate.token) == settings_.end_tokens.end()) {
      scores_[next_.size()] = candidate.score;
      next_.push_back({candidate.beam, candidate.token});
    } else if (rank < settings_.width) {
      ended_.push_back(candidate);
    }
  }
}

// The best live beam could at most keep its mean.
bool BeamSearch::ends() const {
  if (next_.empty() || tokens_ >= settings_.max_tokens) return true;
  if (complete_ < settings_.width) return false;
  return hypotheses_[complete_ - 1].score >= scores_[0] / tokens_;
}

// Inserts a complete hypothesis by rank; the worst of too many goes.
void BeamSearch::keep(std::span<const TokenId> tokens, TokenId last, double sum) {
  const double score = sum / static_cast<double>(tokens.size() + 1);
  if (complete_ == settings_.width) {
    if (hypotheses_[complete_ - 1].score >= score) return;
    --complete_;
  }
  Hypothesis& added = hypotheses_[complete_++];
  added.score = score;
  added.tokens.assign(tokens.begin(), tokens.end());
  added.tokens.push_back(last);
  for (uint32_t i = complete_ - 1; i > 0 && hypotheses_[i - 1].score < score; --i) {
    std::swap(hypotheses_[i - 1], hypotheses_[i]);
  }
}

void BeamSearch::become_next() {
  live_ = static_cast<uint32_t>(next_.size());
  for (uint32_t b = 0; b < live_; ++b) {
    beams_[b].score = scores_[b];
    beams_[b].ready = false;
  }
}

}  // namespace kvasir::engine
