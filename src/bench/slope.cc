// slope: how the cost of a token grows with the context before it. Decoding must read the keys and
// values of the context once, prefill must multiply with them, and nothing else may grow.
//
//   decode   us per generated token at several depths; the fitted slope in ns per token of context
//            beside what reading its KV bytes takes at the bandwidth measured here
//   prefill  the same for prompt tokens, beside what their attention's multiplications take at the
//            peak of the dot products that attention runs with (int8: half of them int8, half f32)
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/fp_env.h"
#include "bench/driver.h"
#include "bench/kernels.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kDeepest = 4096;
// Of the deepest: where it is measured.
constexpr std::array<uint32_t, 5> kSixteenths{1, 4, 8, 12, 16};
constexpr uint32_t kGenerate = 32;
constexpr uint32_t kPromptTokens = 256;
constexpr uint32_t kRounds = 3;
constexpr uint32_t kLimitSamples = 9;

// Slope of the least-squares line through (x, y). Requires: two different x.
double slope_of(std::span<const double> x, std::span<const double> y) {
  const auto n = static_cast<double>(x.size());
  double sum_x = 0.0;
  double sum_y = 0.0;
  double sum_xx = 0.0;
  double sum_xy = 0.0;
  for (size_t i = 0; i < x.size(); ++i) {
    sum_x += x[i];
    sum_y += y[i];
    sum_xx += x[i] * x[i];
    sum_xy += x[i] * y[i];
  }
  return (n * sum_xy - sum_x * sum_y) / (n * sum_xx - sum_x * sum_x);
}

class SlopeBench {
 public:
  SlopeBench(const BenchOptions& options, const BenchHooks& hooks)
      : hooks_(hooks),
        engine_(options.engine),
        generate_(or_default(options.generate, kGenerate)),
        prompt_(or_default(options.tokens, kPromptTokens)),
        rounds_(or_default(options.repeat, kRounds)) {
    const uint32_t deepest = std::max(16U, or_default(options.depth, kDeepest));
    for (const uint32_t share : kSixteenths) depths_.push_back(deepest / 16 * share);
    decode_us_.resize(depths_.size());
    prefill_us_.resize(depths_.size());
  }

  base::Status run() {
    RETURN_IF_ERROR(check());
    RETURN_IF_ERROR(load());
    for (uint32_t round = 0; round < rounds_; ++round) {
      for (size_t i = 0; i < depths_.size(); ++i) {
        show_progress(hooks_, fmt::format("slope: round {} of {}, {} tokens deep", round + 1,
                                          rounds_, depths_[i]));
        RETURN_IF_ERROR(measure(round, i));
      }
    }
    RETURN_IF_ERROR(measure_limits());
    const model::ModelConfig& config = llm_->config();
    const double macs = 2.0 * config.layers * config.query_width();
    const auto bytes = static_cast<double>(llm_->bytes_per_token());
    write("decode", decode_us_, prompt_ + generate_ / 2.0, bytes / read_gb_s_);
    write("prefill", prefill_us_, prompt_ / 2.0, macs / dot_gmac_s_);
    return {};
  }

 private:
  base::Status check() const {
    if (engine_.kv_mode != kv::CacheMode::kPaged) {
      return base::bad_input("slope needs --kv paged: without reuse every prompt costs its depth");
    }
    const kernels::Isa isa = engine_.kernels->isa;
    if (find_dot(isa, attention_dot(engine_)) == nullptr) {
      return base::bad_input(fmt::format("--isa {}: its peak can not be measured; use another",
                                         kernels::isa_name(isa)));
    }
    return {};
  }

  base::Status load() {
    const uint64_t longest = uint64_t{depths_.back()} + prompt_ + generate_ + 1;
    if (!engine_.context) {
      engine_.context = static_cast<uint32_t>(std::min<uint64_t>(longest, UINT32_MAX));
    }
    // The prefix once, and what each measurement adds to it.
    const uint64_t added = base::align_up(uint64_t{prompt_} + generate_ + 1, engine_.block_tokens);
    if (!engine_.kv_memory_bytes) {
      engine_.kv_tokens = base::align_up(longest, engine_.block_tokens) + 4 * added;
    }
    show_progress(hooks_, "loading the model");
    ASSIGN_OR_RETURN(llm_, api::Llm::load(engine_, {}));
    if (llm_->sequence_tokens_limit() < longest) {
      return base::bad_input(fmt::format("--context {}: this needs {} tokens; raise it",
                                         llm_->sequence_tokens_limit(), longest));
    }
    show_progress(hooks_, fmt::format("slope: computing {} tokens", depths_.back()));
    prefix_ = prompt_tokens(*llm_, 0, depths_.back());
    RETURN_IF_ERROR(drive_one(*llm_, {.tokens = prefix_, .max_tokens = 1}, hooks_));
    return {};
  }

  // A new prompt behind the prefix, then an answer.
  base::Status measure(uint32_t round, size_t i) {
    engine::Request request{.tokens = {prefix_.begin(), prefix_.begin() + depths_[i]},
                            .max_tokens = generate_ + 1};
    const uint64_t stream = 1 + round * depths_.size() + i;
    const std::vector<TokenId> fresh = prompt_tokens(*llm_, stream, prompt_);
    request.tokens.insert(request.tokens.end(), fresh.begin(), fresh.end());
    ASSIGN_OR_RETURN(const Answer answer, drive_one(*llm_, std::move(request), hooks_));
    const engine::RequestStats& stats = answer.stats;
    prefill_us_[i].push_back(static_cast<double>(stats.first_token_us - *stats.admitted_us) /
                             stats.prompt_tokens_computed);
    decode_us_[i].push_back(static_cast<double>(stats.finished_us - stats.first_token_us) /
                            generate_);
    return {};
  }

  base::Status measure_limits() {
    show_progress(hooks_, "slope: measuring the machine");
    const base::ScopedFpEnv fp_env;
    base::ThreadPool pool(engine_.threads);
    const kernels::Isa isa = engine_.kernels->isa;
    ASSIGN_OR_RETURN(MachineLimits limits, MachineLimits::create(pool, isa));
    const DotInstruction* dot = find_dot(isa, attention_dot(engine_));
    const DotInstruction* int8 = find_dot(isa, DotKind::kInt8);
    const bool keys_in_int8 = engine_.kv_dtype == quant::KvDtype::kInt8;
    std::vector<double> reads;
    std::vector<double> dots;
    for (uint32_t i = 0; i < kLimitSamples; ++i) {
      reads.push_back(limits.read_gb_s(pool.threads()));
      const double rate = limits.dot_gmac_s(*dot, pool.threads());
      const double key_rate = keys_in_int8 ? limits.dot_gmac_s(*int8, pool.threads()) : rate;
      dots.push_back(2.0 / (1.0 / rate + 1.0 / key_rate));
    }
    read_gb_s_ = spread_of(std::move(reads)).median;
    dot_gmac_s_ = spread_of(std::move(dots)).median;
    return {};
  }

  // `middle`: what the measured tokens saw between the prefix and themselves, on average.
  void write(std::string_view name, const std::vector<std::vector<double>>& samples, double middle,
             double predicted_ns) const {
    std::vector<double> depth;
    std::vector<double> ns;
    boost::json::array points;
    for (size_t i = 0; i < depths_.size(); ++i) {
      const double us = spread_of(samples[i]).median;
      depth.push_back(depths_[i] + middle);
      ns.push_back(us * 1000.0);
      points.push_back({{"depth", depth.back()}, {"us_per_token", us}});
    }
    const double slope_ns = slope_of(depth, ns);
    boost::json::object line = result_line("slope", name, *llm_);
    line["points"] = std::move(points);
    line["slope_ns"] = slope_ns;
    line["predicted_ns"] = predicted_ns;
    line["slope_ratio"] = slope_ns / predicted_ns;
    line["read_gb_s"] = read_gb_s_;
    line["dot_gmac_s"] = dot_gmac_s_;
    hooks_.on_line(line);
  }

  const BenchHooks& hooks_;
  api::EngineOptions engine_;
  uint32_t generate_;
  uint32_t prompt_;
  uint32_t rounds_;
  std::vector<uint32_t> depths_;
  std::vector<TokenId> prefix_;
  std::unique_ptr<api::Llm> llm_;
  std::vector<std::vector<double>> decode_us_;   // by depth, by round
  std::vector<std::vector<double>> prefill_us_;  // the same
  double read_gb_s_ = 0.0;
  double dot_gmac_s_ = 0.0;
};

}  // namespace

base::Status bench_slope(const BenchOptions& options, const BenchHooks& hooks) {
  return SlopeBench(options, hooks).run();
}

}  // namespace kvasir::bench
