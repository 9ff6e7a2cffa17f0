// modes: the same answer without a cache, with the textbooks' contiguous cache and with the paged
// one. Work grows with the square of the length in the first case and with the length in the
// others; the bytes are what the others pay for it.
#include <fmt/format.h>

#include <algorithm>

#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kLongest = 256;
constexpr uint32_t kLengths = 4;  // longest, half, quarter, eighth

struct ModeCase {
  kv::CacheMode mode;
  uint32_t length;
};

base::Result<boost::json::object> run_case(const BenchOptions& options, const BenchHooks& hooks,
                                           const ModeCase& c) {
  api::EngineOptions engine = options.engine;
  engine.kv_mode = c.mode;
  engine.sequences_max = 1;
  // All modes get one full context, which is what the contiguous cache must set aside.
  ASSIGN_OR_RETURN(const auto llm, api::Llm::load(engine, {}));
  std::vector<double> seconds;
  api::Completion last;
  const uint32_t repeat = options.repeat == 0 ? 3 : options.repeat;
  for (uint32_t i = 0; i < repeat; ++i) {
    const api::GenerateRequest request{.prompt = prompt_tokens(*llm, 0, 1),
                                       .max_tokens = c.length,
                                       .ignore_eos = true,
                                       .digest_logits = true};
    ASSIGN_OR_RETURN(auto done,
                     llm->generate(std::span(&request, 1), {.cancelled = hooks.cancelled}));
    if (hooks.cancelled && hooks.cancelled()) return base::runtime_error("interrupted");
    last = std::move(done[0]);
    seconds.push_back(static_cast<double>(last.stats.finished_us - *last.stats.admitted_us) / 1e6);
  }
  const kv::CacheStats cache = llm->stats().cache;
  const uint64_t peak_bytes =
      uint64_t{cache.blocks().referenced_peak} * cache.groups[0].block_bytes;
  const bool keeps = c.mode != kv::CacheMode::kNone;
  const Spread spread = spread_of(seconds);
  boost::json::object line =
      result_line("modes", fmt::format("{}@{}", kv::cache_mode_name(c.mode), c.length), *llm);
  line["generate"] = c.length;
  line["repeat"] = repeat;
  line["pairs_computed"] = last.stats.pairs_computed;
  line["decode_s"] = spread.median;
  line["decode_s_min"] = spread.min;
  line["decode_s_max"] = spread.max;
  line["kv_bytes_peak"] = keeps ? peak_bytes : 0;          // kept from one token to the next
  line["kv_scratch_bytes_peak"] = keeps ? 0 : peak_bytes;  // given back after every token
  line["logits_sha256"] = base::to_hex(*last.stats.logits_digest);
  return line;
}

}  // namespace

base::Status bench_modes(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t longest = options.generate == 0 ? kLongest : options.generate;
  for (const kv::CacheMode mode :
       {kv::CacheMode::kNone, kv::CacheMode::kContiguous, kv::CacheMode::kPaged}) {
    for (uint32_t i = kLengths; i-- > 0;) {
      const uint32_t length = std::max(longest >> i, 1U);
      if (hooks.on_progress) {
        hooks.on_progress(fmt::format("modes {}: {} tokens", kv::cache_mode_name(mode), length));
      }
      ASSIGN_OR_RETURN(const boost::json::object line, run_case(options, hooks, {mode, length}));
      hooks.on_line(line);
    }
  }
  return {};
}

}  // namespace kvasir::bench
