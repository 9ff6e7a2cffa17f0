// prefix: what a shared prefix costs the second time, and what it costs when many ask at once.
//
//   cold      prefix and question, nothing cached
//   warm      the same prefix, another question
//   depth     the yardstick for warm: a plain prefill of as many tokens at that depth. It is the
//             last step of a cold prompt, whose earlier chunks end where the prefix ends: the same
//             rows at the same positions, without a lookup.
//   early     N requests with one new prefix arrive within the first quarter of a cold prefill
//   no_early  the same in a cache that shows blocks only when their owner has finished
//
// Rounds of all cases are interleaved; each begins with empty caches and new random tokens.
#include <fmt/format.h>

#include <algorithm>

#include "base/fp_env.h"
#include "bench/driver.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kPrefixTokens = 2048;
constexpr uint32_t kQuestionTokens = 32;
constexpr uint32_t kRequests = 8;
constexpr uint32_t kGenerate = 256;  // nobody finishes before the last prompt is computed
constexpr uint32_t kRounds = 5;
constexpr uint32_t kPairs = 3;  // cold and warm prompts of a round

struct Case {
  std::string_view name;
  std::vector<double> ttft_ms;
  uint32_t tokens_computed = 0;  // the worst round

  void add(double ms, uint32_t tokens) {
    ttft_ms.push_back(ms);
    tokens_computed = std::max(tokens_computed, tokens);
  }
};

class PrefixBench {
 public:
  PrefixBench(const BenchOptions& options, const BenchHooks& hooks)
      : hooks_(hooks),
        engine_(options.engine),
        prefix_tokens_(or_default(options.tokens, kPrefixTokens)),
        requests_(or_default(options.sequences, kRequests)),
        generate_(or_default(options.generate, kGenerate)),
        rounds_(or_default(options.repeat, kRounds)) {}

  base::Status run() {
    RETURN_IF_ERROR(load());
    for (uint32_t round = 0; round <= rounds_; ++round) {
      show_progress(hooks_, fmt::format("prefix: round {} of {}", round, rounds_));
      RETURN_IF_ERROR(empty_caches());
      for (uint32_t i = 0; i < kPairs; ++i) RETURN_IF_ERROR(cold_and_warm());
      RETURN_IF_ERROR(burst(*llm_, early_));
      RETURN_IF_ERROR(burst(*late_llm_, no_early_));
      if (round > 0) continue;  // the first one touches the memory
      for (Case* c : cases()) *c = {.name = c->name};
      cold_us_.clear();
    }
    for (const Case* c : cases()) write(*c);
    return {};
  }

 private:
  std::vector<Case*> cases() { return {&cold_, &warm_, &depth_, &early_, &no_early_}; }

  base::Status load() {
    const uint32_t chunk = std::min(engine_.prefill_chunk.value_or(prefix_tokens_), prefix_tokens_);
    if (prefix_tokens_ % chunk != 0) {
      return base::bad_input(fmt::format(
          "--prefill-chunk {}: the prefix of {} tokens must be a multiple of it, so that a step "
          "begins where the prefix ends",
          chunk, prefix_tokens_));
    }
    engine_.prefill_chunk = chunk;
    const uint32_t longest = prefix_tokens_ + kQuestionTokens + generate_;
    if (!engine_.context) engine_.context = longest;
    engine_.sequences_max = std::max(engine_.sequences_max, requests_);
    const uint64_t rounded = base::align_up(longest, engine_.block_tokens) + engine_.block_tokens;
    if (!engine_.kv_memory_bytes) engine_.kv_tokens = rounded * (requests_ + 2 * kPairs);
    show_progress(hooks_, "loading the model");
    ASSIGN_OR_RETURN(llm_, api::Llm::load(engine_, {}));
    engine_.kv_publish = kv::Publish::kWhenFinished;
    ASSIGN_OR_RETURN(late_llm_, api::Llm::load(engine_, {}));
    return {};
  }

  base::Status empty_caches() {
    const base::ScopedFpEnv fp_env;
    for (api::Llm* llm : {llm_.get(), late_llm_.get()}) {
      if (!llm->engine().reset_cache().done) {
        return base::runtime_error("the cache could not be emptied between rounds");
      }
    }
    return {};
  }

  engine::Request request(const std::vector<TokenId>& prefix, uint32_t max_tokens) {
    engine::Request request{.tokens = prefix, .max_tokens = max_tokens};
    const std::vector<TokenId> question = prompt_tokens(*llm_, ++stream_, kQuestionTokens);
    request.tokens.insert(request.tokens.end(), question.begin(), question.end());
    return request;
  }

  base::Status cold_and_warm() {
    const std::vector<TokenId> prefix = prompt_tokens(*llm_, ++stream_, prefix_tokens_);
    double last_step_ms = 0.0;
    const DriveHooks watch{
        .on_step = [&](uint64_t us) { last_step_ms = static_cast<double>(us) / 1e3; }};
    ASSIGN_OR_RETURN(const Answer cold, drive_one(*llm_, request(prefix, 1), hooks_, watch));
    cold_.add(cold.ttft_ms(), cold.stats.prompt_tokens_computed);
    cold_us_.push_back(static_cast<double>(cold.first_token_us));
    depth_.add(last_step_ms, kQuestionTokens);
    ASSIGN_OR_RETURN(const Answer warm, drive_one(*llm_, request(prefix, 1), hooks_));
    warm_.add(warm.ttft_ms(), warm.stats.prompt_tokens_computed);
    return {};
  }

  base::Status burst(api::Llm& llm, Case& result) {
    const std::vector<TokenId> prefix = prompt_tokens(*llm_, ++stream_, prefix_tokens_);
    const double quarter_us = spread_of(cold_us_).median / 4.0;
    std::vector<Arrival> arrivals;
    for (uint32_t i = 0; i < requests_; ++i) {
      const double at_us = quarter_us * i / requests_;
      arrivals.push_back(
          {.at_us = static_cast<uint64_t>(at_us), .request = request(prefix, generate_)});
    }
    ASSIGN_OR_RETURN(const auto answers, drive(llm, std::move(arrivals), hooks_));
    uint32_t computed = 0;
    for (const Answer& answer : answers) computed += answer.stats.prompt_tokens_computed;
    for (const Answer& answer : answers) result.add(answer.ttft_ms(), computed);
    return {};
  }

  void write(const Case& c) {
    boost::json::object line = result_line("prefix", c.name, *llm_);
    line["tokens"] = prefix_tokens_;
    line["question_tokens"] = kQuestionTokens;
    line["repeat"] = rounds_;
    line["ttft_ms_p50"] = percentile(c.ttft_ms, 50.0);
    line["ttft_ms_p95"] = percentile(c.ttft_ms, 95.0);
    line["ttft_ms_min"] = std::ranges::min(c.ttft_ms);
    line["tokens_computed"] = c.tokens_computed;
    hooks_.on_line(line);
  }

  const BenchHooks& hooks_;
  api::EngineOptions engine_;
  uint32_t prefix_tokens_;
  uint32_t requests_;
  uint32_t generate_;
  uint32_t rounds_;
  uint64_t stream_ = 0;
  std::unique_ptr<api::Llm> llm_;
  std::unique_ptr<api::Llm> late_llm_;
  std::vector<double> cold_us_;
  Case cold_{.name = "cold"};
  Case warm_{.name = "warm"};
  Case depth_{.name = "depth"};
  Case early_{.name = "early"};
  Case no_early_{.name = "no_early"};
};

}  // namespace

base::Status bench_prefix(const BenchOptions& options, const BenchHooks& hooks) {
  return PrefixBench(options, hooks).run();
}

}  // namespace kvasir::bench
