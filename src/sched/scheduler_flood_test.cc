// Nine quiet tenants beside one that floods: simulated minutes of a server.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <random>
#include <vector>

#include "sched/testing_load.h"

namespace kvasir::sched {
namespace {

constexpr uint32_t kTenants = 10;
constexpr uint32_t kFlooder = 0;
constexpr uint32_t kPromptTokens = 64;
constexpr uint32_t kAnswerTokens = 64;
constexpr uint32_t kFloodRequests = 256;  // always open
constexpr uint64_t kMeanGapUs = 500'000;  // between requests of the quiet ones
constexpr uint64_t kMinuteUs = 60'000'000;

// What a step costs the small default model on two slow cores.
uint64_t step_us(const std::vector<PlannedRows>& rows) {
  uint64_t us = 2'200;
  for (const PlannedRows& row : rows) us += row.tokens == 1 ? 850 : row.tokens * 560;
  return us;
}

SchedulerLimits limits() {
  return {.requests_max = 512,
          .sequences_max = 32,
          .prefill_chunk = 128,
          .logit_rows_max = 32,
          .step_target_us = 50'000,
          .tenant_weights = std::vector<double>(kTenants, 1.0)};
}

struct Served {
  std::vector<uint64_t> ttft_us;   // of the quiet tenants
  std::vector<uint64_t> pause_us;  // between tokens of theirs
  uint64_t flooder_tokens = 0;     // generated
};

// A minute of arrivals; all quiet requests are answered.
class Minute {
 public:
  Minute(bool flooded, uint64_t seed)
      : flooded_(flooded),
        arrivals_(seed),
        cache_(make_cache(1024, 32)),
        scheduler_(limits(), *cache_, clock_) {}

  Served run() {
    while (!over()) {
      arrive();
      step();
    }
    return std::move(served_);
  }

 private:
  static constexpr uint64_t kStartUs = 3'000'000;  // steps have been measured by then
  static constexpr uint64_t kEndUs = kStartUs + kMinuteUs;

  struct Request {
    uint32_t tenant = 0;
    uint64_t arrived_us = 0;
    std::optional<uint64_t> newest_token_us;
  };

  bool over() const { return clock_.now_us() >= kEndUs && quiet_open_ == 0; }

  void arrive() {
    while (flooded_ && flood_open_ < kFloodRequests) add(kFlooder, clock_.now_us());
    for (; next_quiet_us_ <= clock_.now_us() && next_quiet_us_ < kEndUs;
         next_quiet_us_ += gap_us()) {
      add(1 + static_cast<uint32_t>(arrivals_() % (kTenants - 1)), next_quiet_us_);
    }
  }

  // Of a Poisson process.
  uint64_t gap_us() {
    const double uniform = (static_cast<double>(arrivals_() >> 11) + 1.0) * 0x1p-53;
    return static_cast<uint64_t>(-std::log(uniform) * kMeanGapUs);
  }

  void add(uint32_t tenant, uint64_t arrived_us) {
    std::vector<TokenId> tokens(kPromptTokens);
    for (TokenId& token : tokens) token = static_cast<TokenId>(tokens_() % 50'000);
    const Slot slot = scheduler_.add({.tokens = std::move(tokens),
                                      .tokens_max = kPromptTokens + kAnswerTokens,
                                      .tenant = tenant});
    requests_[slot] = {.tenant = tenant, .arrived_us = arrived_us};
    ++(tenant == kFlooder ? flood_open_ : quiet_open_);
  }

  void step() {
    if (scheduler_.idle()) return wait();
    const auto plan = scheduler_.plan();
    const std::vector<PlannedRows> rows(plan.begin(), plan.end());
    clock_.advance(step_us(rows));
    for (const PlannedRows& row : rows) {
      scheduler_.complete(row);
      if (row.samples) sample(row.slot);
    }
  }

  void wait() { clock_.advance(std::max(next_quiet_us_, clock_.now_us() + 1) - clock_.now_us()); }

  void sample(Slot slot) {
    Request& request = requests_[slot];
    const uint64_t now_us = clock_.now_us();
    if (request.tenant == kFlooder) {
      ++served_.flooder_tokens;
    } else if (!request.newest_token_us) {
      served_.ttft_us.push_back(now_us - request.arrived_us);
    } else {
      served_.pause_us.push_back(now_us - *request.newest_token_us);
    }
    request.newest_token_us = now_us;
    if (scheduler_.tokens(slot).size() < kPromptTokens + kAnswerTokens) {
      return scheduler_.append_token(slot, static_cast<TokenId>(tokens_() % 50'000));
    }
    --(request.tenant == kFlooder ? flood_open_ : quiet_open_);
    scheduler_.remove(slot);
  }

  bool flooded_;
  std::mt19937_64 arrivals_;  // whose and when, whatever is computed meanwhile
  std::mt19937_64 tokens_{0};
  ManualClock clock_;
  std::unique_ptr<kv::Cache> cache_;
  Scheduler scheduler_;
  std::map<Slot, Request> requests_;
  uint64_t next_quiet_us_ = kStartUs;
  uint32_t flood_open_ = 0;
  uint32_t quiet_open_ = 0;
  Served served_;
};

// `minutes` of them, each with arrivals of its own; the same ones with a flooder and without.
Served minutes(uint32_t minutes, bool flooded) {
  Served all;
  for (uint64_t seed = 1; seed <= minutes; ++seed) {
    const Served one = Minute(flooded, seed).run();
    all.ttft_us.insert(all.ttft_us.end(), one.ttft_us.begin(), one.ttft_us.end());
    all.pause_us.insert(all.pause_us.end(), one.pause_us.begin(), one.pause_us.end());
    all.flooder_tokens += one.flooder_tokens;
  }
  return all;
}

uint64_t percentile(std::vector<uint64_t> values, size_t percent) {
  std::ranges::sort(values);
  return values[values.size() * percent / 100];
}

TEST(SchedulerFlood, a_flooder_at_most_doubles_the_first_token_of_others) {
  const Served alone = minutes(10, false);
  const Served beside = minutes(10, true);
  ASSERT_EQ(beside.ttft_us.size(), alone.ttft_us.size()) << "the same arrivals, all answered";
  ASSERT_GT(alone.ttft_us.size(), 1000U);
  EXPECT_LE(percentile(beside.ttft_us, 50), 2 * percentile(alone.ttft_us, 50));
  EXPECT_LE(percentile(beside.ttft_us, 95), 2 * percentile(alone.ttft_us, 95));
  EXPECT_LE(percentile(beside.ttft_us, 99), 2 * percentile(alone.ttft_us, 99));
}

TEST(SchedulerFlood, answers_of_others_keep_their_pace_and_the_flooder_has_what_they_leave) {
  const Served beside = minutes(4, true);
  EXPECT_LE(percentile(beside.pause_us, 50), limits().step_target_us);
  EXPECT_LE(percentile(beside.pause_us, 99), 3 * limits().step_target_us / 2);
  // Alone it would have about 720 tokens a second, and the others need a fifth of the time.
  EXPECT_GT(beside.flooder_tokens, 4 * 60 * 500U);
}

}  // namespace
}  // namespace kvasir::sched
