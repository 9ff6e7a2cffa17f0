#include "bench/driver.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>

#include "base/fp_env.h"
#include "base/rng.h"

namespace kvasir::bench {
namespace {

constexpr double kLengthSigma = 1.0;
constexpr double kLengthMin = 4.0;
constexpr double kLengthMax = 1024.0;

class Drive {
 public:
  Drive(api::Llm& llm, std::vector<Arrival> arrivals)
      : llm_(llm), arrivals_(std::move(arrivals)), answers_(arrivals_.size()) {}

  base::Result<std::vector<Answer>> run(const BenchHooks& hooks, const DriveHooks& watch) {
    for (const Arrival& arrival : arrivals_) {
      RETURN_IF_ERROR(llm_.engine().check(arrival.request));
    }
    start_us_ = clock_.now_us();
    while (next_ < arrivals_.size() || !llm_.engine().idle()) {
      if (base::Status status = check_cancelled(hooks); !status) {
        for (const auto& [id, index] : running_) llm_.engine().cancel(id);
        return std::unexpected(std::move(status).error());
      }
      submit_due();
      if (llm_.engine().idle()) {
        skip_to_next_arrival();
        continue;
      }
      const uint64_t before_us = clock_.now_us();
      const auto events = llm_.engine().step();
      const uint64_t step_us = clock_.now_us() - before_us;
      for (const engine::Event& event : events) take(event);
      if (watch.on_step) watch.on_step(step_us);
    }
    return std::move(answers_);
  }

 private:
  void submit_due() {
    const uint64_t now_us = since_start(clock_.now_us());
    while (next_ < arrivals_.size() && arrivals_[next_].at_us <= now_us) {
      Arrival& arrival = arrivals_[next_];
      if (!llm_.engine().can_submit(arrival.request)) return;
      answers_[next_].arrived_us = arrival.at_us;
      running_[llm_.engine().submit(std::move(arrival.request))] = next_;
      ++next_;
    }
  }

  // Nobody is there to be slowed down or sped up: the bench's clock jumps.
  void skip_to_next_arrival() {
    const uint64_t due_us = arrivals_[next_].at_us;
    const uint64_t now_us = since_start(clock_.now_us());
    if (due_us > now_us) skipped_us_ += due_us - now_us;
  }

  uint64_t since_start(uint64_t clock_us) const { return clock_us - start_us_ + skipped_us_; }

  void take(const engine::Event& event) {
    Answer& answer = answers_[running_.at(event.sequence)];
    if (event.kind == engine::Event::Kind::kToken && event.choice == 0) {
      answer.tokens.push_back(event.token);
    }
    if (event.kind != engine::Event::Kind::kFinished) return;
    if (event.choice == 0) answer.stats = *event.stats;
    if (event.choice == 0) answer.first_token_us = since_start(event.stats->first_token_us);
    answer.finished_us = std::max(answer.finished_us, since_start(event.stats->finished_us));
  }

  api::Llm& llm_;
  base::SteadyClock clock_;  // the engine's clock, too, is a steady one
  std::vector<Arrival> arrivals_;
  std::vector<Answer> answers_;
  std::map<SequenceId, size_t> running_;  // every request ever submitted
  size_t next_ = 0;
  uint64_t start_us_ = 0;
  uint64_t skipped_us_ = 0;  // while nothing ran and nothing had arrived
};

}  // namespace

base::Result<std::vector<Answer>> drive(api::Llm& llm, std::vector<Arrival> arrivals,
                                        const BenchHooks& hooks, const DriveHooks& watch) {
  const base::ScopedFpEnv fp_env;
  return Drive(llm, std::move(arrivals)).run(hooks, watch);
}

base::Result<Answer> drive_one(api::Llm& llm, engine::Request request, const BenchHooks& hooks,
                               const DriveHooks& watch) {
  std::vector<Arrival> arrivals;
  arrivals.push_back({.request = std::move(request)});
  ASSIGN_OR_RETURN(std::vector<Answer> answers, drive(llm, std::move(arrivals), hooks, watch));
  return std::move(answers[0]);
}

double percentile(std::vector<double> values, double percent) {
  CHECK(!values.empty());
  std::ranges::sort(values);
  const double rank = std::ceil(percent / 100.0 * static_cast<double>(values.size()));
  return values[static_cast<size_t>(std::max(rank, 1.0)) - 1];
}

// Box-Muller; the mean of exp(mu + sigma * normal) is exp(mu + sigma^2 / 2).
uint32_t draw_length(double mean, uint64_t stream, uint64_t index) {
  const base::RngKey key{.seed = 1, .choice = stream};
  const double radius = std::sqrt(-2.0 * std::log(1.0 - base::random_unit(key, 2 * index)));
  const double angle = 2.0 * std::numbers::pi * base::random_unit(key, 2 * index + 1);
  const double mu = std::log(mean) - kLengthSigma * kLengthSigma / 2.0;
  const double length = std::exp(mu + kLengthSigma * radius * std::cos(angle));
  return static_cast<uint32_t>(std::lround(std::clamp(length, kLengthMin, kLengthMax)));
}

}  // namespace kvasir::bench
