// kernels: what this machine can do at most, and which share of it the kernels reach.
//
// Nothing of a model is loaded: random weights, activations, keys and values in the shapes of real
// models. Machines are shared, so the limit is measured right before and right after every sample
// of a kernel, and what counts is their ratio. Weights, keys and values come from memory, never
// from a cache: they are walked round in a set larger than any. Few tokens are compared with the
// speed of reading, many with the speed of multiplying.
#include "bench/kernels.h"

#include <fmt/format.h>

#include "base/fp_env.h"
#include "base/rng.h"
#include "bench/stopwatch.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kRounds = 5;
constexpr uint32_t kLimitRounds = 15;

template <typename Sample>
Spread spread_over(uint32_t rounds, const Sample& sample) {
  std::vector<double> values;
  values.reserve(rounds);
  for (uint32_t i = 0; i < rounds; ++i) values.push_back(sample());
  return spread_of(std::move(values));
}

void report_dots(const KernelSetting& setting, std::optional<double> ghz, size_t threads) {
  for (const DotKind kind : {DotKind::kInt8, DotKind::kBF16, DotKind::kF32}) {
    const DotInstruction* dot = find_dot(setting.kernels.isa, kind);
    if (dot == nullptr) continue;
    const Spread spread =
        spread_over(kLimitRounds, [&] { return setting.limits.dot_gmac_s(*dot, threads); });
    boost::json::object line =
        kernel_line(setting, fmt::format("{}@{}", dot_kind_name(kind), threads), threads);
    line["instruction"] = dot->name;
    put_spread(line, "gmac_s", spread);
    if (ghz) line["macs_per_cycle"] = spread.max / *ghz / static_cast<double>(threads);
    setting.hooks.on_line(line);
  }
}

base::Status report_limits(const KernelSetting& setting) {
  std::optional<double> ghz;
  if (MachineLimits::clock_ghz()) {
    const Spread clock =
        spread_over(kLimitRounds, [] { return MachineLimits::clock_ghz().value_or(0.0); });
    ghz = clock.max;  // what interrupts a sample can only slow it down
    boost::json::object line = kernel_line(setting, "clock", 1);
    put_spread(line, "ghz", clock);
    setting.hooks.on_line(line);
  }
  for (size_t threads = 1; threads <= setting.pool.threads(); ++threads) {
    show_progress(setting.hooks, fmt::format("kernels: limits of {} threads", threads));
    RETURN_IF_ERROR(check_cancelled(setting.hooks));
    boost::json::object line = kernel_line(setting, fmt::format("read@{}", threads), threads);
    line["memory_bytes"] = MachineLimits::kMemoryBytes;
    put_spread(line, "gb_s",
               spread_over(kLimitRounds, [&] { return setting.limits.read_gb_s(threads); }));
    setting.hooks.on_line(line);
    report_dots(setting, ghz, threads);
  }
  boost::json::object line = kernel_line(
      setting, fmt::format("fork_join@{}", setting.pool.threads()), setting.pool.threads());
  put_spread(line, "ns", spread_over(kLimitRounds, [&] { return setting.limits.fork_join_ns(); }));
  setting.hooks.on_line(line);
  return {};
}

}  // namespace

boost::json::object kernel_line(const KernelSetting& setting, std::string_view name,
                                size_t threads) {
  boost::json::object line = machine_line("kernels", name);
  line["isa"] = kernels::isa_name(setting.kernels.isa);
  line["threads"] = threads;
  return line;
}

void put_spread(boost::json::object& line, std::string_view key, const Spread& spread) {
  line[key] = spread.median;
  line[fmt::format("{}_min", key)] = spread.min;
  line[fmt::format("{}_max", key)] = spread.max;
}

base::Result<double> report_share(const KernelSetting& setting, const KernelWork& work,
                                  boost::json::object line, const std::function<void()>& sample) {
  const size_t threads = setting.pool.threads();
  const DotInstruction* dot = work.peak ? find_dot(setting.kernels.isa, *work.peak) : nullptr;
  const auto limit = [&] {
    return work.peak ? setting.limits.dot_gmac_s(*dot, threads) : setting.limits.read_gb_s(threads);
  };
  const double amount = (work.peak ? work.macs : work.bytes) / 1e9;
  const bool has_limit = !work.peak || dot != nullptr;
  show_progress(setting.hooks, fmt::format("kernels: {}", line.at("case").as_string().c_str()));
  std::vector<double> seconds;
  std::vector<double> percent;
  sample();  // the first run warms code and activations up
  for (uint32_t round = 0; round < setting.rounds; ++round) {
    RETURN_IF_ERROR(check_cancelled(setting.hooks));
    const double before = has_limit ? limit() : 0.0;
    const SteadyTime start = start_stopwatch();
    sample();
    seconds.push_back(seconds_since(start));
    if (!has_limit) continue;
    percent.push_back(100.0 * amount / seconds.back() / ((before + limit()) / 2));
  }
  const Spread time = spread_of(std::move(seconds));
  line["gb_s"] = work.bytes / 1e9 / time.median;
  line["gmac_s"] = work.macs / 1e9 / time.median;
  line["peak"] = work.peak ? dot_kind_name(*work.peak) : "read";
  if (has_limit) put_spread(line, "pct_of_peak", spread_of(std::move(percent)));
  setting.hooks.on_line(line);
  return time.median;
}

uint32_t random_word(uint64_t index) {
  return base::random_bits({.seed = 5}, index / 4)[index % 4];
}

std::vector<float> random_floats(size_t count) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    values[i] = static_cast<float>(random_word(i) >> 8) * 0x1p-23F - 1.0F;
  }
  return values;
}

base::Status bench_kernels(const BenchOptions& options, const BenchHooks& hooks) {
  const base::ScopedFpEnv fp_env;
  base::ThreadPool pool(options.engine.threads, options.engine.placement);
  const kernels::KernelTable& kernels = *options.engine.kernels;
  show_progress(hooks, "kernels: filling memory");
  ASSIGN_OR_RETURN(MachineLimits limits, MachineLimits::create(pool, kernels.isa));
  const KernelSetting setting{.hooks = hooks,
                              .kernels = kernels,
                              .engine = options.engine,
                              .pool = pool,
                              .limits = limits,
                              .rounds = or_default(options.repeat, kRounds)};
  const std::vector<float> noise = random_floats(size_t{1} << 18);
  limits.fill(std::as_bytes(std::span(noise)));
  RETURN_IF_ERROR(report_limits(setting));
  RETURN_IF_ERROR(report_packs(setting));
  RETURN_IF_ERROR(report_linears(setting));
  return report_attentions(setting);
}

}  // namespace kvasir::bench
