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
#include "kv/eviction.h"
#include "kv/identity.h"
#include "kv/statistics.h"
#include "sample/params.h"
#include "sample/sampler.h"

namespace kvasir::engine {

constexpr uint32_t kTopLogprobsMax = 20;
constexpr uint32_t kChoicesMax = 16;

struct Request {
  std::vector<TokenId> tokens;  // the prompt; at least one
  uint32_t max_tokens = 0;      // 0: only compute (and score) the prompt
  sample::SamplingParams sampling;
  std::vector<TokenId> encoder_tokens;  // what an encoder reads first; empty: nothing
  std::vector<TokenId> end_tokens;      // ids that end the answer; they are part of it
  uint32_t min_tokens = 0;              // before so many no end token is chosen; not with beams
  uint32_t choices = 1;                 // answers sampled from one prompt, computed once
  uint32_t beams = 0;                   // beam search of this width instead of sampling; 0: none
  bool score_prompt = false;            // Event::kScore for every prompt row
  bool logprobs = false;                // of every chosen token
  uint32_t top_logprobs = 0;            // alternatives per token, at most kTopLogprobsMax
  bool digest_logits = false;           // SHA-256 over the raw logits of all sampled positions

  // The cache.
  kv::CacheDomain domain;  // whose prefixes it may share
  bool reads_cache = true;
  kv::Retention retention = kv::Retention::kNormal;
  uint64_t retain_us = 0;  // keep its blocks from eviction for so long after it has ended
  int32_t priority = 0;    // higher is scheduled first
  uint32_t tenant = 0;     // below SchedulerLimits::tenants: who shares the machine fairly
};

enum class FinishReason : uint8_t {
  kStop,        // an end token, or a stop string that the caller found
  kLength,      // max_tokens
  kModelFailed  // logits without a finite maximum: a broken file
};

// What one answer cost; complete when it has finished.
struct RequestStats {
  uint32_t prompt_tokens = 0;
  uint32_t tokens_cached = 0;  // prompt tokens that were served from the cache
  kv::MatchReport match;       // and why the others were not
  uint32_t tokens_generated = 0;
  uint64_t pairs_computed = 0;          // tokens for which K and V rows were written
  uint32_t prompt_tokens_computed = 0;  // once each, however often they are computed again
  uint32_t preemptions = 0;
  uint64_t promise_wait_us = 0;  // waited for blocks that another request was computing
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
    kAnswer,    // beam search: `answer` is complete, with `score`; best first
    kFinished,  // the last event of its sequence and choice
  };
  Kind kind = Kind::kToken;
  SequenceId sequence{};
  uint32_t choice = 0;
  uint32_t position = 0;
  TokenId token = 0;     // kToken: the choice; kScore: the most likely next token
  float logprob = 0.0F;  // kToken: of the choice (if asked for); kScore: of the prompt's
                         // next token, where there is one
  uint32_t top_count = 0;
  std::array<sample::TokenLogprob, kTopLogprobsMax> top;
  std::span<const float> logits;              // kScore: raw, valid until the next step
  std::span<const TokenId> answer;            // kAnswer; valid until the next step
  double score = 0.0;                         // kAnswer: mean log-probability of its tokens
  FinishReason finish = FinishReason::kStop;  // kFinished
  const RequestStats* stats = nullptr;        // kFinished; valid until the next step
};

}  // namespace kvasir::engine
