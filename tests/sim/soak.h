// The soak: random clients against the real engine, scheduler and cache on the fake model. Every
// answer, whole or cancelled, is compared to what a model without a cache writes; hits may only be
// of what the same domain has said before; nothing is held when nothing runs; something must always
// get on.
//
// A soak of seed S runs setups S, S + 1, S + 2, ..., each for a share of the tokens: a setup that
// fails fails again when its own seed is given.
//
// Thread: one thread calls everything. Allocates: yes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "sim/soak_setup.h"

namespace kvasir::sim {

struct SoakOptions {
  uint64_t seed = 1;
  uint64_t tokens = 1'000'000;  // to serve: prompts and answers of finished requests
  uint64_t tokens_per_setup = 100'000;
  uint64_t requests = UINT64_MAX;  // or so many requests
  std::optional<double> seconds;   // or after so long
  SoakFamily family = SoakFamily::kAny;
  uint32_t steps_per_check = 64;  // between check_invariants()
  bool prints_setups = true;      // to standard output, before each runs: a CHECK ends the process
};

struct SoakFigures {
  double seconds = 0.0;
  uint64_t setups = 0;
  uint64_t steps = 0;
  uint64_t requests = 0;  // ended, cancelled ones too
  uint64_t cancels = 0;
  uint64_t pauses = 0;
  uint64_t tokens = 0;
  uint64_t tokens_computed = 0;
  uint64_t tokens_hit = 0;
  uint64_t preemptions = 0;
  uint64_t evictions = 0;
  uint64_t copies = 0;
  uint64_t dedups = 0;
  uint64_t promises = 0;  // kept
  uint64_t promise_waits = 0;
  uint64_t relocations = 0;
  uint64_t resets = 0;
};

struct SoakReport {
  SoakFigures figures;
  std::optional<std::string> failure;  // what was wrong, with the seed that shows it again
};

SoakReport run_soak(const SoakOptions& options);

// Several lines.
std::string describe(const SoakFigures& figures);

}  // namespace kvasir::sim
