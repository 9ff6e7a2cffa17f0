#include "sim/soak.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "sim/soak_run.h"

namespace kvasir::sim {
namespace {

void add(SoakFigures& sum, const SoakFigures& more) {
  constexpr uint64_t SoakFigures::* kCounters[] = {
      &SoakFigures::setups,          &SoakFigures::steps,       &SoakFigures::requests,
      &SoakFigures::cancels,         &SoakFigures::pauses,      &SoakFigures::tokens,
      &SoakFigures::tokens_computed, &SoakFigures::tokens_hit,  &SoakFigures::preemptions,
      &SoakFigures::evictions,       &SoakFigures::copies,      &SoakFigures::dedups,
      &SoakFigures::promises,        &SoakFigures::relocations, &SoakFigures::promise_waits,
      &SoakFigures::resets};
  for (const auto counter : kCounters) sum.*counter += more.*counter;
}

}  // namespace

SoakReport run_soak(const SoakOptions& options) {
  SoakReport report;
  const base::SteadyClock clock;
  const uint64_t started_us = clock.now_us();
  for (uint64_t seed = options.seed; report.figures.tokens < options.tokens; ++seed) {
    const SoakSetup setup = random_setup(seed, options.family);
    if (options.prints_setups) {
      fmt::print("{}\n", describe(setup));
      std::fflush(stdout);
    }
    SoakRun run(setup, options.steps_per_check);
    const uint64_t left = options.tokens - report.figures.tokens;
    report.failure = run.run(std::min(left, options.tokens_per_setup));
    add(report.figures, run.figures());
    report.figures.seconds = static_cast<double>(clock.now_us() - started_us) * 1e-6;
    if (report.failure) break;
    if (report.figures.requests >= options.requests) break;
    if (options.seconds && report.figures.seconds >= *options.seconds) break;
  }
  return report;
}

std::string describe(const SoakFigures& figures) {
  return fmt::format(
      "{} tokens in {:.1f} s: {:.0f} tokens/s; {} setups, {} steps, {} requests, {} cancels, {} "
      "pauses, {} resets\n"
      "{} tokens hit, {} computed; {} preemptions, {} evictions, {} copies, {} dedups, {} promises "
      "kept, {} waits for one, {} relocations\n",
      figures.tokens, figures.seconds, static_cast<double>(figures.tokens) / figures.seconds,
      figures.setups, figures.steps, figures.requests, figures.cancels, figures.pauses,
      figures.resets, figures.tokens_hit, figures.tokens_computed, figures.preemptions,
      figures.evictions, figures.copies, figures.dedups, figures.promises, figures.promise_waits,
      figures.relocations);
}

}  // namespace kvasir::sim
