// Text in, text out: a loaded model with its tokenizer, chat template and engine. The library's
// front door.
//
// Thread: one thread at a time. Allocates: freely outside of engine steps.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/options.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "engine/engine.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir::api {

// One completion to make.
struct GenerateRequest {
  std::vector<TokenId> prompt;
  uint32_t max_tokens = 128;
  sample::SamplingParams sampling;
  std::vector<std::string> stop;     // end the answer when they appear in its text
  bool keeps_stop = false;           // and stay in it
  std::vector<TokenId> stop_tokens;  // end the answer like end-of-generation tokens
  bool ignore_eos = false;           // go on past end-of-generation tokens
  uint32_t min_tokens = 0;           // no end token is chosen before so many
  bool score_prompt = false;         // logprobs of the prompt's tokens; max_tokens may be 0 then
  bool logprobs = false;
  uint32_t top_logprobs = 0;
  bool digest_logits = false;
  uint32_t choices = 1;  // answers sampled from one prompt, computed once
  uint32_t beams = 0;    // beam search of this width instead; 0: none
  kv::CacheDomain domain;
  bool reads_cache = true;
  kv::Retention retention = kv::Retention::kNormal;
  uint64_t retain_us = 0;
  int32_t priority = 0;  // higher is scheduled first
  uint32_t tenant = 0;   // among whom the machine is shared fairly
};

enum class EndReason : uint8_t { kStop, kLength, kCancelled, kDeadline, kModelFailed };
std::string_view end_reason_name(EndReason reason);

struct TokenDetail {
  float logprob = 0.0F;
  std::vector<sample::TokenLogprob> top;
};

struct Completion {
  size_t request = 0;
  uint32_t choice = 0;
  std::vector<TokenId> tokens;  // generated, an end token included
  std::string text;
  EndReason reason = EndReason::kLength;
  std::optional<double> score;       // beam search: mean log-probability of the tokens
  std::vector<TokenDetail> details;  // one per token, if logprobs were asked for
  engine::RequestStats stats;
};

// What the caller may watch and steer while requests run. All may be empty.
struct GenerateHooks {
  std::function<void(size_t completion, std::string_view text)> on_text;
  // Prompt tokens of all requests, after each step that computed some and left some.
  std::function<void(uint64_t computed, uint64_t total)> on_prefill;
  std::function<bool()> cancelled;  // asked between steps
};

// One row of a scored prompt; spans are valid during the call only.
struct ScoredRow {
  uint32_t position = 0;
  TokenId argmax = 0;
  std::optional<float> next_logprob;  // of the token that follows; the last row has none
  std::span<const float> logits;
};

struct MemoryUse {
  uint64_t weights_bytes = 0;
  uint64_t kv_bytes = 0;
  uint64_t activations_bytes = 0;
  uint64_t total_bytes() const { return weights_bytes + kv_bytes + activations_bytes; }
};

class Llm {
 public:
  // `progress`: fraction of the weights packed; may be empty.
  static base::Result<std::unique_ptr<Llm>> load(const EngineOptions& options,
                                                 const std::function<void(double)>& progress);

  // Runs all requests, batched, until they have ended: the choices of the first, of the second ...
  // Error: a request that can not be run; then none is.
  base::Result<std::vector<Completion>> generate(std::span<const GenerateRequest> requests,
                                                 const GenerateHooks& hooks);

  // Computes a prompt and reports every row in order. Returns false when cancelled.
  base::Result<bool> score(std::vector<TokenId> tokens,
                           const std::function<void(const ScoredRow&)>& on_row,
                           const GenerateHooks& hooks);

  // Longest prompt plus answer that can run.
  uint32_t sequence_tokens_limit() const { return engine_->sequence_tokens_limit(); }

  const EngineOptions& options() const { return options_; }
  const EnginePlan& plan() const { return plan_; }
  const model::ModelConfig& config() const { return loaded_.config; }
  const text::Tokenizer& tokenizer() const { return *tokenizer_; }
  // nullptr: the file carries none.
  const text::ChatTemplate* chat_template() const;
  engine::EngineStats stats() const { return engine_->stats(); }
  // Error: the first thing wrong with the request. Any thread, also while the engine runs.
  base::Status check(const engine::Request& request) const { return engine_->check(request); }
  // The engine itself, for callers that drive its steps (they enter base::ScopedFpEnv first).
  engine::Engine& engine() { return *engine_; }
  MemoryUse memory_use() const;
  uint64_t bytes_per_token() const;  // KV payload and scales
  double load_ms() const { return load_ms_; }
  // Of the model file and how numbers are computed: changes with whatever changes answers.
  std::string fingerprint() const;

 private:
  class Run;  // one generate() call

  explicit Llm(const EngineOptions& options)
      : options_(options), pool_(options.threads, options.placement) {}
  base::Status read_file(const std::function<void(double)>& progress);

  EngineOptions options_;
  base::SteadyClock clock_;
  base::ThreadPool pool_;
  load::LoadedModel loaded_;
  EnginePlan plan_;
  std::optional<text::Tokenizer> tokenizer_;
  std::optional<text::ChatTemplate> chat_template_;
  std::unique_ptr<model::Model> transformer_;
  std::unique_ptr<engine::Engine> engine_;  // last: it uses everything above
  double load_ms_ = 0.0;
};

}  // namespace kvasir::api
