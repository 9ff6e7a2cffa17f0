// prefill, decode and batch: tokens per second.
#include <fmt/format.h>

#include <algorithm>

#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kDefaultRepeat = 5;

// A model with room for `sequences` sequences of `tokens` tokens, and no more unless told.
base::Result<std::unique_ptr<api::Llm>> load(const BenchOptions& options, const BenchHooks& hooks,
                                             uint64_t tokens, uint32_t sequences) {
  api::EngineOptions engine = options.engine;
  engine.sequences_max = sequences;
  if (!engine.context) {
    engine.context = static_cast<uint32_t>(std::min<uint64_t>(tokens, UINT32_MAX));
  }
  const uint64_t rounded = base::align_up(*engine.context, engine.block_tokens);
  if (!engine.kv_memory_bytes) engine.kv_tokens = rounded * sequences;
  if (hooks.on_progress) hooks.on_progress("loading the model");
  return api::Llm::load(engine, {});
}

// Runs `requests`; the completions in order. Error: as Llm::generate, or cancelled.
base::Result<std::vector<api::Completion>> generate(
    api::Llm& llm, const BenchHooks& hooks, std::span<const api::GenerateRequest> requests) {
  ASSIGN_OR_RETURN(std::vector<api::Completion> done,
                   llm.generate(requests, {.cancelled = hooks.cancelled}));
  if (hooks.cancelled && hooks.cancelled()) return base::runtime_error("interrupted");
  return done;
}

// Computes these tokens, so that prompts which begin with them find them in the cache.
base::Status fill_cache(api::Llm& llm, const BenchHooks& hooks,
                        const std::vector<TokenId>& tokens) {
  if (tokens.empty()) return {};
  const api::GenerateRequest fill{.prompt = tokens, .max_tokens = 1, .ignore_eos = true};
  ASSIGN_OR_RETURN(const auto filled, generate(llm, hooks, std::span(&fill, 1)));
  CHECK(filled.size() == 1);
  return {};
}

std::vector<TokenId> joined(std::vector<TokenId> first, const std::vector<TokenId>& second) {
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

// Measures `repeat` runs and reports the line.
struct Throughput {
  std::string_view bench;
  std::string name;
  uint32_t repeat;
};
template <typename Measure>
base::Status report(const Throughput& what, const api::Llm& llm, const BenchHooks& hooks,
                    boost::json::object details, const Measure& measure) {
  std::vector<double> rates;
  for (uint32_t i = 0; i <= what.repeat; ++i) {
    if (hooks.on_progress) {
      hooks.on_progress(fmt::format("{} {}: {} of {}", what.bench, what.name, i, what.repeat));
    }
    ASSIGN_OR_RETURN(const double rate, measure(i));
    if (i > 0) rates.push_back(rate);  // the first run warms caches and pages up
  }
  const Spread spread = spread_of(std::move(rates));
  boost::json::object line = result_line(what.bench, what.name, llm);
  for (auto& [key, value] : details) line[key] = std::move(value);
  line["repeat"] = what.repeat;
  line["tok_s"] = spread.median;
  line["tok_s_min"] = spread.min;
  line["tok_s_max"] = spread.max;
  hooks.on_line(line);
  return {};
}

}  // namespace

base::Status bench_prefill(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t tokens = or_default(options.tokens, 512);
  ASSIGN_OR_RETURN(const auto llm, load(options, hooks, uint64_t{options.depth} + tokens + 1, 1));
  const std::vector<TokenId> before = prompt_tokens(*llm, 0, options.depth);
  RETURN_IF_ERROR(fill_cache(*llm, hooks, before));
  const auto measure = [&](uint32_t round) -> base::Result<double> {
    // New tokens each round: what was there before is reused, what is measured is not.
    const api::GenerateRequest request{
        .prompt = joined(before, prompt_tokens(*llm, 1 + round, tokens)),
        .max_tokens = 1,
        .ignore_eos = true};
    ASSIGN_OR_RETURN(const auto done, generate(*llm, hooks, std::span(&request, 1)));
    const engine::RequestStats& stats = done[0].stats;
    return static_cast<double>(stats.prompt_tokens_computed) * 1e6 /
           static_cast<double>(stats.first_token_us - *stats.admitted_us);
  };
  return report({"prefill", fmt::format("{}@{}", tokens, options.depth),
                 or_default(options.repeat, kDefaultRepeat)},
                *llm, hooks, {{"tokens", tokens}, {"depth", options.depth}}, measure);
}

base::Status bench_decode(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t count = or_default(options.generate, 128);
  const uint32_t depth = std::max(options.depth, 1U);  // a prompt needs a token
  ASSIGN_OR_RETURN(const auto llm, load(options, hooks, uint64_t{depth} + count + 1, 1));
  const api::GenerateRequest request{
      .prompt = prompt_tokens(*llm, 0, depth), .max_tokens = count + 1, .ignore_eos = true};
  const auto measure = [&](uint32_t) -> base::Result<double> {
    ASSIGN_OR_RETURN(const auto done, generate(*llm, hooks, std::span(&request, 1)));
    const engine::RequestStats& stats = done[0].stats;
    return static_cast<double>(count) * 1e6 /
           static_cast<double>(stats.finished_us - stats.first_token_us);
  };
  return report({"decode", fmt::format("{}@{}", count, options.depth),
                 or_default(options.repeat, kDefaultRepeat)},
                *llm, hooks, {{"generate", count}, {"depth", options.depth}}, measure);
}

base::Status bench_batch(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t sequences = or_default(options.sequences, 16);
  const uint32_t tokens = or_default(options.tokens, 128);
  const uint32_t count = or_default(options.generate, 64);
  ASSIGN_OR_RETURN(const auto llm,
                   load(options, hooks, uint64_t{options.depth} + tokens + count, sequences));
  const std::vector<TokenId> common = prompt_tokens(*llm, 0, options.depth);
  RETURN_IF_ERROR(fill_cache(*llm, hooks, common));
  const auto measure = [&](uint32_t round) -> base::Result<double> {
    std::vector<api::GenerateRequest> requests(sequences);
    for (uint32_t i = 0; i < sequences; ++i) {
      const uint64_t seed = 1 + uint64_t{round} * sequences + i;
      requests[i] = {.prompt = joined(common, prompt_tokens(*llm, seed, tokens)),
                     .max_tokens = count,
                     .ignore_eos = true};
    }
    ASSIGN_OR_RETURN(const auto done, generate(*llm, hooks, requests));
    uint64_t first_us = done[0].stats.submitted_us;
    uint64_t last_us = 0;
    for (const api::Completion& completion : done) {
      first_us = std::min(first_us, completion.stats.submitted_us);
      last_us = std::max(last_us, completion.stats.finished_us);
    }
    return static_cast<double>(sequences) * (tokens + count) * 1e6 /
           static_cast<double>(last_us - first_us);
  };
  return report(
      {"batch", fmt::format("{}@{}", sequences, options.depth), or_default(options.repeat, 3)},
      *llm, hooks,
      {{"sequences", sequences}, {"tokens", tokens}, {"generate", count}, {"depth", options.depth}},
      measure);
}

}  // namespace kvasir::bench
