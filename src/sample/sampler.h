// Logits to a token. The choice is a pure function of (logits, params, history, position): the
// random number is drawn by counter, so a sequence that is preempted, moved or batched otherwise
// draws the same.
//
// Order: logit bias, penalties, bans, temperature, top-k, min-p, top-p, draw. Ties go to the lower
// id.
//
// Thread: one owner. Allocates: constructor only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/rng.h"
#include "kernels/kernels.h"
#include "sample/params.h"

namespace kvasir::sample {

struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0.0F;
};

// What has been said so far.
//   tokens: 0 ........ prompt_tokens ........ tokens.size()
//           |- prompt -|- answer -----------|
struct History {
  std::span<const TokenId> tokens;
  size_t prompt_tokens = 0;
  uint32_t choice = 0;              // which of several answers to one prompt
  std::span<const TokenId> banned;  // not to be chosen now
};

class Sampler {
 public:
  Sampler(uint32_t vocab_size, const kernels::KernelTable& kernels);

  // The next token, at position history.tokens.size(); nullopt: the logits hold no finite maximum
  // (the model or its file is broken).
  //   logits  [vocab_size]
  std::optional<TokenId> choose(std::span<const float> logits, const SamplingParams& params,
                                const History& history);

  // Natural-log probability of `token`.
  float logprob_of(std::span<const float> logits, TokenId token) const;
  // The most likely tokens, best first; returns how many were written (out.size() at most).
  size_t top_logprobs(std::span<const float> logits, std::span<TokenLogprob> out);

 private:
  void apply_bias_and_penalties(std::span<float> logits, const SamplingParams& params,
                                const History& history);
  TokenId draw(std::span<float> logits, const SamplingParams& params, double unit, float max);
  size_t keep_top_k(std::span<const float> logits, size_t count, size_t top_k);
  size_t keep_top_p(std::span<const float> logits, size_t count, float top_p);
  void sort_front(std::span<const float> logits, size_t count, size_t front);

  uint32_t vocab_size_;
  const kernels::KernelTable& kernels_;

  // Scratch.
  std::vector<float> adjusted_;          // [vocab], logits after bias, penalties, temperature
  std::vector<TokenId> candidates_;      // [vocab]
  std::vector<float> probabilities_;     // [vocab], by token id; not normalised
  std::vector<uint32_t> answer_counts_;  // [vocab], all zero between calls
  std::vector<uint8_t> seen_;            // [vocab], all zero between calls
};

}  // namespace kvasir::sample
