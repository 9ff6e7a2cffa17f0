// Drives an engine step by step with requests that arrive over time, as a server would.
//
// Thread: one caller, which these functions put into base::ScopedFpEnv. Allocates: freely, outside
// of engine steps.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "api/llm.h"
#include "bench/workloads.h"

namespace kvasir::bench {

struct Arrival {
  uint64_t at_us = 0;  // after the start
  engine::Request request;
};

// How a request fared; times are after the start.
struct Answer {
  uint64_t arrived_us = 0;
  uint64_t first_token_us = 0;
  uint64_t finished_us = 0;
  std::vector<TokenId> tokens;  // of its first choice
  engine::RequestStats stats;

  double ttft_ms() const { return static_cast<double>(first_token_us - arrived_us) / 1e3; }
};

struct DriveHooks {
  // After each step that computed something, with how long it took.
  std::function<void(uint64_t step_us)> on_step;
};

// Submits each request when it is due and runs until all have ended; the answers in the order of
// the arrivals, which are in order of time. A request that arrives during a step waits for its end;
// time in which no request is there is skipped, not waited for.
// Error: a request that can not be run, or Ctrl-C.
base::Result<std::vector<Answer>> drive(api::Llm& llm, std::vector<Arrival> arrivals,
                                        const BenchHooks& hooks, const DriveHooks& watch = {});

// One request, now.
base::Result<Answer> drive_one(api::Llm& llm, engine::Request request, const BenchHooks& hooks,
                               const DriveHooks& watch = {});

// The value below which `percent` of the values lie: nearest rank. Requires: not empty.
double percentile(std::vector<double> values, double percent);

// Log-normal number with this mean and sigma 1, clipped to 4 ... 1024: lengths of requests.
// The same for the same stream and index.
uint32_t draw_length(double mean, uint64_t stream, uint64_t index);

}  // namespace kvasir::bench
