// Tests: a scheduler on a small cache, with a clock of its own and steps that take time.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "sched/scheduler.h"

namespace kvasir::sched {

constexpr uint32_t kBlockTokens = 16;
constexpr uint64_t kRowUs = 10;

class ManualClock final : public base::Clock {
 public:
  uint64_t now_us() const override { return now_us_; }
  void advance(uint64_t us) { now_us_ += us; }

 private:
  uint64_t now_us_ = 1000;
};

inline std::unique_ptr<kv::Cache> make_cache(uint32_t blocks, uint32_t sequences_max) {
  const kv::GroupShape group{
      .layers = 1, .kv_heads = 1, .head_dim = 16, .dtype = quant::KvDtype::kF32};
  const kv::BlockLayout layout(group, kBlockTokens);
  return *kv::Cache::create({.groups = {group},
                             .block_tokens = kBlockTokens,
                             .budget_bytes = blocks * layout.block_bytes(),
                             .sequences_max = sequences_max,
                             .sequence_tokens_max = 512,
                             .verify = true});
}

inline std::vector<TokenId> counting(uint32_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = first++;
  return tokens;
}

// A scheduler whose steps take kRowUs a row and choose a token wherever one is sampled.
class Load {
 public:
  Load(uint32_t blocks, uint32_t sequences_max, uint32_t prefill_chunk)
      : Load(blocks, {.requests_max = 64,
                      .sequences_max = sequences_max,
                      .prefill_chunk = prefill_chunk,
                      .logit_rows_max = sequences_max}) {}
  Load(uint32_t blocks, const SchedulerLimits& limits)
      : cache(make_cache(blocks, limits.sequences_max)), scheduler(limits, *cache, clock) {}

  Slot add(std::vector<TokenId> tokens, uint32_t answer = 100, int32_t priority = 0) {
    const auto size = static_cast<uint32_t>(tokens.size());
    return add({.tokens = std::move(tokens), .tokens_max = size + answer, .priority = priority});
  }
  Slot add(SequenceSpec spec) {
    const uint32_t most = spec.tokens_max;
    const Slot slot = scheduler.add(std::move(spec));
    tokens_max[slot] = most;
    return slot;
  }
  // Plans and computes a step; what was planned.
  std::vector<PlannedRows> step() {
    const auto plan = scheduler.plan();
    std::vector<PlannedRows> rows(plan.begin(), plan.end());
    for (const PlannedRows& row : rows) clock.advance(row.tokens * kRowUs);
    for (const PlannedRows& row : rows) {
      scheduler.complete(row);
      const auto size = static_cast<uint32_t>(scheduler.tokens(row.slot).size());
      if (row.samples && size < tokens_max[row.slot]) {
        scheduler.append_token(row.slot, 100'000 + static_cast<TokenId>(size));
      }
      computed[row.slot] += row.tokens;
    }
    scheduler.check_invariants();
    cache->check_invariants();
    return rows;
  }

  ManualClock clock;
  std::unique_ptr<kv::Cache> cache;
  Scheduler scheduler;
  std::map<Slot, uint32_t> tokens_max;  // a sequence that has as many stays as it is
  std::map<Slot, uint32_t> computed;    // rows
};

inline std::vector<Slot> slots_of(const std::vector<PlannedRows>& rows) {
  std::vector<Slot> slots;
  slots.reserve(rows.size());
  for (const PlannedRows& row : rows) slots.push_back(row.slot);
  return slots;
}

}  // namespace kvasir::sched
