// How a token is chosen from logits. Values are validated at the edge (see `check`).
// Thread: a value type.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ids.h"
#include "base/result.h"

namespace kvasir::sample {

struct LogitBias {
  TokenId token = 0;
  float bias = 0.0F;
};

struct SamplingParams {
  float temperature = 0.0F;         // 0: always the most likely token
  uint32_t top_k = 0;               // 0: all tokens
  float top_p = 1.0F;               // (0, 1]
  float min_p = 0.0F;               // [0, 1), relative to the most likely token
  float repetition_penalty = 1.0F;  // > 0; over prompt and answer (Keskar et al., arXiv:1909.05858)
  float presence_penalty = 0.0F;    // [-2, 2]; over the answer
  float frequency_penalty = 0.0F;   // [-2, 2]; over the answer, times the count
  uint64_t seed = 0;
  std::vector<LogitBias> logit_bias;

  bool greedy() const { return temperature == 0.0F; }
  bool changes_logits() const {
    return repetition_penalty != 1.0F || presence_penalty != 0.0F || frequency_penalty != 0.0F ||
           !logit_bias.empty();
  }
};

// Error: the first value out of range, by name. Non-finite numbers are out of every range.
base::Status check(const SamplingParams& params, uint32_t vocab_size);

}  // namespace kvasir::sample
