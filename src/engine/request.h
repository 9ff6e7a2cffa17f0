// What enters the engine and what leaves it: token ids only, no text. Requests are validated by
// Engine::check() at the edge; after that nothing in them can make a step fail.
//
// Thread: value types.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/digest.h"
#include "base/ids.h"
#include "sample/params.h"
#include "sample/sampler.h"

namespace kvasir::engine {

constexpr uint32_t kTopLogprobsMax = 20;

struct Request {
  std::vector<TokenId> tokens;  // the prompt; at least one
  uint32_t max_tokens = 0;      // 0: only compute (and score) the prompt
  sample::SamplingParams sampling;
  std::vector<TokenId> end_tokens;             // ids that end the answer; they are part of it
  bool score_prompt = false;                   // Event::kScore for every prompt row
  bool logprobs = false;                       // of every chosen token
  uint32_t top_logprobs = 0;                   // alternatives per token, at most kTopLogprobsMax
  std::optional<ConversationId> conversation;  // reuse its cache, leave the result there
  bool digest_logits = false;  // SHA-256 over the raw logits of all sampled positions
};

enum class FinishReason : uint8_t {
  kStop,        // an end token, or a stop string that the caller found
  kLength,      // max_tokens
  kModelFailed  // logits without a finite maximum: a broken file
};

// What one request cost; complete when it has finished.
struct RequestStats {
  uint32_t prompt_tokens = 0;
  uint32_t tokens_cached = 0;  // prompt tokens that were not computed
  uint32_t tokens_generated = 0;
  uint64_t pairs_computed = 0;          // tokens for which K and V rows were written
  uint32_t prompt_tokens_computed = 0;  // once each, also where mode kNone computes them again
  uint64_t submitted_us = 0;
  std::optional<uint64_t> admitted_us;  // its first rows were planned
  uint64_t first_token_us = 0;          // or the end of the prompt, where nothing is generated
  uint64_t finished_us = 0;
  std::optional<base::Sha256Bytes> logits_digest;
};

struct Event {
  enum class Kind : uint8_t {
    kScore,     // the prompt row at `position` was computed
    kToken,     // `token` was chosen for `position`
    kFinished,  // the last event of its sequence
  };
  Kind kind = Kind::kToken;
  SequenceId sequence{};
  uint32_t position = 0;
  TokenId token = 0;     // kToken: the choice; kScore: the most likely next token
  float logprob = 0.0F;  // kToken: of the choice (if asked for); kScore: of the prompt's
                         // next token, where there is one
  uint32_t top_count = 0;
  std::array<sample::TokenLogprob, kTopLogprobsMax> top;
  std::span<const float> logits;              // kScore: raw, valid until the next step
  FinishReason finish = FinishReason::kStop;  // kFinished
  const RequestStats* stats = nullptr;        // kFinished; valid until the next step
};

}  // namespace kvasir::engine
