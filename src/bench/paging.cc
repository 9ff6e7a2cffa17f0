// paging: requests of very different lengths arrive over time in little memory. What a contiguous
// cache reserves for the longest answer, or for the next power of two, others can not use.
//
// Arrivals are a Poisson process; rates are multiples of the saturation rate of contiguous_max,
// which is measured first, with all requests there at once. The cases see the same requests at the
// same times, one case after the other at each rate.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/fp_env.h"
#include "base/rng.h"
#include "bench/driver.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kRequests = 300;
constexpr uint32_t kContext = 2048;
constexpr uint64_t kKvBytes = uint64_t{256} << 20;
constexpr double kPromptMean = 161.0;
constexpr double kOutputMean = 338.0;
constexpr double kRates[] = {0.25, 0.5, 1.0, 2.0, 4.0};

enum Stream : uint64_t { kPrompts, kOutputs, kArrivals };

struct Scheme {
  std::string_view name;
  kv::CacheMode mode;
  kv::ContiguousRun run;
};
constexpr Scheme kSchemes[] = {
    {"contiguous_max", kv::CacheMode::kContiguous, kv::ContiguousRun::kLongest},
    {"contiguous_pow2", kv::CacheMode::kContiguous, kv::ContiguousRun::kPowerOfTwo},
    {"paged", kv::CacheMode::kPaged, kv::ContiguousRun::kLongest}};

struct Measured {
  double seconds = 0.0;  // from the first arrival to the last answer
  uint64_t prompt_tokens = 0;
  uint64_t generated_tokens = 0;
  double waste = 0.0;  // mean over steps
  double running = 0.0;
  uint32_t sequences_peak = 0;
  uint32_t preemptions = 0;
  double latency_s_per_token = 0.0;
};

class PagingBench {
 public:
  PagingBench(const BenchOptions& options, const BenchHooks& hooks)
      : options_(options), hooks_(hooks), requests_(or_default(options.sequences, kRequests)) {}

  base::Status run() {
    for (const Scheme& scheme : kSchemes) {
      show_progress(hooks_, fmt::format("loading the model for {}", scheme.name));
      ASSIGN_OR_RETURN(std::unique_ptr<api::Llm> llm, load(scheme));
      llms_.push_back(std::move(llm));
    }
    show_progress(hooks_, "paging: measuring the saturation of contiguous_max");
    ASSIGN_OR_RETURN(const Measured saturated, measure(*llms_[0], std::nullopt));
    const double per_second = requests_ / saturated.seconds;
    std::vector<double> rates(std::begin(kRates), std::end(kRates));
    if (options_.rate > 0.0) rates = {options_.rate};
    for (const double rate : rates) {
      for (size_t i = 0; i < std::size(kSchemes); ++i) {
        show_progress(hooks_, fmt::format("paging {}: {} x saturation", kSchemes[i].name, rate));
        ASSIGN_OR_RETURN(const Measured measured, measure(*llms_[i], rate * per_second));
        write(i, rate, per_second, measured);
      }
    }
    return {};
  }

 private:
  base::Result<std::unique_ptr<api::Llm>> load(const Scheme& scheme) const {
    api::EngineOptions engine = options_.engine;
    engine.kv_mode = scheme.mode;
    engine.kv_contiguous_run = scheme.run;
    engine.requests_max = requests_;
    if (!engine.context) engine.context = kContext;
    if (!engine.kv_memory_bytes) engine.kv_memory_bytes = kKvBytes;
    return api::Llm::load(engine, {});
  }

  std::vector<Arrival> arrivals(const api::Llm& llm, std::optional<double> per_second) const {
    std::vector<Arrival> all(requests_);
    double at_us = 0.0;
    for (uint32_t i = 0; i < requests_; ++i) {
      if (per_second) {
        const double unit = base::random_unit({.seed = 1, .choice = kArrivals}, i);
        at_us -= std::log(1.0 - unit) * 1e6 / *per_second;
      }
      all[i] = {.at_us = static_cast<uint64_t>(at_us),
                .request = {.tokens = prompt_tokens(llm, i, draw_length(kPromptMean, kPrompts, i)),
                            .max_tokens = draw_length(kOutputMean, kOutputs, i)}};
    }
    return all;
  }

  base::Result<Measured> measure(api::Llm& llm, std::optional<double> per_second) const {
    const base::ScopedFpEnv fp_env;
    if (!llm.engine().reset_cache().done) {
      return base::runtime_error("the cache could not be emptied between rounds");
    }
    Measured result;
    uint64_t steps = 0;
    const DriveHooks watch{.on_step = [&](uint64_t) {
      const engine::EngineStats stats = llm.engine().stats();
      const uint32_t running = stats.cache.sequences;
      if (stats.cache.slots_allocated == 0) return;
      ++steps;
      result.waste += 1.0 - static_cast<double>(stats.cache.slots_live) /
                                static_cast<double>(stats.cache.slots_allocated);
      result.running += running;
      result.sequences_peak = std::max(result.sequences_peak, running);
    }};
    std::vector<Arrival> due = arrivals(llm, per_second);
    const uint64_t first_us = due[0].at_us;
    ASSIGN_OR_RETURN(const auto answers, drive(llm, std::move(due), hooks_, watch));
    uint64_t last_us = 0;
    for (const Answer& answer : answers) {
      last_us = std::max(last_us, answer.finished_us);
      result.prompt_tokens += answer.stats.prompt_tokens;
      result.generated_tokens += answer.stats.tokens_generated;
      result.preemptions += answer.stats.preemptions;
      result.latency_s_per_token += static_cast<double>(answer.finished_us - answer.arrived_us) /
                                    1e6 / answer.stats.tokens_generated / requests_;
    }
    result.seconds = static_cast<double>(last_us - first_us) / 1e6;
    result.waste /= static_cast<double>(std::max<uint64_t>(steps, 1));
    result.running /= static_cast<double>(std::max<uint64_t>(steps, 1));
    return result;
  }

  void write(size_t scheme, double rate, double per_second, const Measured& measured) const {
    const auto tokens = static_cast<double>(measured.prompt_tokens + measured.generated_tokens);
    boost::json::object line = result_line("paging", kSchemes[scheme].name, *llms_[scheme]);
    line["rate"] = rate;
    line["requests"] = requests_;
    line["saturation_requests_s"] = per_second;
    line["requests_s"] = requests_ / measured.seconds;
    line["waste_pct"] = 100.0 * measured.waste;
    line["sequences_peak"] = measured.sequences_peak;
    line["sequences_mean"] = measured.running;
    line["preemptions"] = measured.preemptions;
    line["tok_s"] = tokens / measured.seconds;
    line["generated_tok_s"] = static_cast<double>(measured.generated_tokens) / measured.seconds;
    line["latency_s_per_token"] = measured.latency_s_per_token;
    hooks_.on_line(line);
  }

  const BenchOptions& options_;
  const BenchHooks& hooks_;
  uint32_t requests_;
  std::vector<std::unique_ptr<api::Llm>> llms_;  // by scheme
};

}  // namespace

base::Status bench_paging(const BenchOptions& options, const BenchHooks& hooks) {
  return PagingBench(options, hooks).run();
}

}  // namespace kvasir::bench
