// The workloads of `kvasir bench`: what is run, what is measured, and nothing of how it is shown.
// Figures are medians of repeats in one process; only ratios between cases of one run mean much.
//
// Thread: one caller. Allocates: freely, outside of engine steps.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "api/llm.h"

namespace kvasir::bench {

struct BenchOptions {
  api::EngineOptions engine;
  uint32_t tokens = 0;     // prompt length; 0: the workload's own
  uint32_t depth = 0;      // tokens in the cache before the measured part
  uint32_t generate = 0;   // tokens to generate; 0: the workload's own
  uint32_t sequences = 0;  // 0: the workload's own
  uint32_t repeat = 0;     // 0: the workload's own
  double rate = 0.0;       // of arrivals, in multiples of saturation; 0: the workload's own
};

struct BenchHooks {
  std::function<void(const boost::json::object&)> on_line;  // one finished case
  std::function<void(std::string_view)> on_progress;
  std::function<bool()> cancelled;
};

struct Workload {
  std::string_view name;
  std::string_view help;
  base::Status (*run)(const BenchOptions& options, const BenchHooks& hooks);
  uint32_t sequences_max = 16;  // default of --max-sequences
};

// All of them, in the order of the help text.
std::vector<Workload> workloads();

base::Status bench_prefill(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_decode(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_batch(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_modes(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_prefix(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_paging(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_sharing(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_turns(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_contract(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_index(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_kernels(const BenchOptions& options, const BenchHooks& hooks);
base::Status bench_slope(const BenchOptions& options, const BenchHooks& hooks);

// Shared by the workloads.

// `count` random token ids, the same for the same `stream`; ordinary tokens where there are any.
std::vector<TokenId> prompt_tokens(const api::Llm& llm, uint64_t stream, uint32_t count);

// Minimum, median and maximum of some measurements. Requires: not empty.
struct Spread {
  double min = 0.0;
  double median = 0.0;
  double max = 0.0;
};
Spread spread_of(std::vector<double> values);

inline uint32_t or_default(uint32_t value, uint32_t fallback) {
  return value == 0 ? fallback : value;
}

void show_progress(const BenchHooks& hooks, std::string_view text);
// Error: Ctrl-C was pressed.
base::Status check_cancelled(const BenchHooks& hooks);

// The head of a line of a workload without a model: bench, case and the machine.
boost::json::object machine_line(std::string_view bench, std::string_view name);
// The head of a result line: bench, case, and the machine and settings it was measured with.
boost::json::object result_line(std::string_view bench, std::string_view name, const api::Llm& llm);

}  // namespace kvasir::bench
