#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::sched {

Scheduler::Scheduler(const SchedulerLimits& limits, kv::Cache& cache)
    : limits_(limits), cache_(cache), sequences_(limits.requests_max) {
  CHECK(limits.sequences_max > 0);
  CHECK(limits.requests_max >= limits.sequences_max);
  CHECK(limits.prefill_chunk > 0);
  CHECK(limits.logit_rows_max >= limits.sequences_max);
  free_slots_.reserve(limits.requests_max);
  for (uint32_t i = limits.requests_max; i-- > 0;) free_slots_.push_back(Slot{i});
  waiting_.resize(limits.requests_max);
  running_.reserve(limits.sequences_max);
  plan_.reserve(limits.sequences_max);
}

Slot Scheduler::add(const SequenceSpec& spec, std::optional<kv::Lease> lease) {
  CHECK(!full());
  CHECK(spec.tokens_cached < spec.prompt_tokens);  // the last row must be computed for its logits
  CHECK(spec.tokens_max >= spec.prompt_tokens);
  CHECK(lease.has_value() || spec.tokens_cached == 0);
  CHECK(lease.has_value() || cache_.admission(spec.tokens_max) != kv::Admission::kNever);
  const Slot slot = free_slots_.back();
  free_slots_.pop_back();
  Sequence& sequence = sequences_[index_of(slot)];
  CHECK(!sequence.used);
  sequence = {.spec = spec,
              .tokens = spec.prompt_tokens,
              .computed = spec.tokens_cached,
              .used = true,
              .lease = std::move(lease)};
  waiting_[(waiting_first_ + waiting_count_) % limits_.requests_max] = slot;
  ++waiting_count_;
  return slot;
}

std::optional<kv::Lease> Scheduler::remove(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  if (sequence.running) {
    const auto at = std::find(running_.begin(), running_.end(), slot);
    CHECK(at != running_.end());
    running_.erase(at);
  } else {
    leave_queue(slot);
  }
  std::optional<kv::Lease> lease = std::move(sequence.lease);
  sequence = {};
  free_slots_.push_back(slot);
  return lease;
}

void Scheduler::leave_queue(Slot slot) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < waiting_count_; ++i) {
    const Slot other = waiting_[(waiting_first_ + i) % limits_.requests_max];
    if (other != slot) waiting_[(waiting_first_ + kept++) % limits_.requests_max] = other;
  }
  CHECK(kept + 1 == waiting_count_);
  waiting_count_ = kept;
}

std::span<const PlannedRows> Scheduler::plan() {
  admit();
  plan_.clear();
  logit_rows_left_ = limits_.logit_rows_max;
  for (const Slot slot : running_) {
    const Sequence& sequence = sequence_of(slot);
    if (sequence.tokens - sequence.computed == 1) plan_rows(slot, 1);
  }
  uint32_t budget = limits_.prefill_chunk;
  for (const Slot slot : running_) {
    const Sequence& sequence = sequence_of(slot);
    const uint32_t pending = sequence.tokens - sequence.computed;
    if (pending <= 1) continue;
    if (budget == 0 || logit_rows_left_ == 0) break;  // nobody overtakes
    uint32_t tokens = std::min(pending, budget);
    if (sequence.scoring()) tokens = std::min(tokens, logit_rows_left_);
    plan_rows(slot, tokens);
    budget -= tokens;
  }
  return plan_;
}

void Scheduler::complete(const PlannedRows& rows) {
  Sequence& sequence = sequence_of(rows.slot);
  CHECK(sequence.computed == rows.first_position);
  sequence.computed += rows.tokens;
  CHECK(sequence.computed <= sequence.tokens);
  sequence.prompt_scored |= sequence.computed >= sequence.spec.prompt_tokens;
}

void Scheduler::append_token(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  CHECK(sequence.computed == sequence.tokens);
  CHECK(sequence.tokens < sequence.spec.tokens_max);
  ++sequence.tokens;
  if (cache_.mode() == kv::CacheMode::kNone) {
    // The naive engine remembers nothing: the next token starts from the first one again.
    cache_.truncate(*sequence.lease, 0);
    sequence.computed = 0;
  }
}

const kv::Lease& Scheduler::lease(Slot slot) const {
  const Sequence& sequence = sequence_of(slot);
  CHECK(sequence.running);
  return *sequence.lease;
}

uint32_t Scheduler::tokens_computed(Slot slot) const {
  return sequence_of(slot).computed;
}

void Scheduler::check_invariants() const {
  uint32_t used = 0;
  uint32_t running = 0;
  for (const Sequence& sequence : sequences_) {
    CHECK(sequence.used || !sequence.lease.has_value());
    CHECK(sequence.lease.has_value() || !sequence.running);
    if (!sequence.used) continue;
    ++used;
    running += sequence.running ? 1 : 0;
    CHECK(sequence.computed <= sequence.tokens);
    CHECK(sequence.tokens <= sequence.spec.tokens_max);
  }
  CHECK(running == running_.size());
  CHECK(used == running_.size() + waiting_count_);
  CHECK(used + free_slots_.size() == sequences_.size());
  CHECK(running_.size() <= limits_.sequences_max);
}

void Scheduler::admit() {
  while (waiting_count_ > 0 && running_.size() < limits_.sequences_max) {
    const Slot slot = waiting_[waiting_first_];
    Sequence& sequence = sequence_of(slot);
    if (!sequence.lease.has_value()) {
      if (cache_.admission(sequence.spec.tokens_max) != kv::Admission::kNow) return;
      sequence.lease.emplace(cache_.open(sequence.spec.tokens_max));
    }
    waiting_first_ = (waiting_first_ + 1) % limits_.requests_max;
    --waiting_count_;
    sequence.running = true;
    running_.push_back(slot);
  }
}

void Scheduler::plan_rows(Slot slot, uint32_t tokens) {
  const Sequence& sequence = sequence_of(slot);
  const uint32_t end = sequence.computed + tokens;
  const bool scores = sequence.scoring();
  const bool samples = end == sequence.tokens;
  const uint32_t logit_rows = scores ? tokens : samples ? 1 : 0;
  CHECK(logit_rows <= logit_rows_left_);
  logit_rows_left_ -= logit_rows;
  cache_.grow(*sequence.lease, end);
  plan_.push_back({.slot = slot,
                   .first_position = sequence.computed,
                   .tokens = tokens,
                   .samples = samples,
                   .scores = scores});
}

const Scheduler::Sequence& Scheduler::sequence_of(Slot slot) const {
  CHECK(index_of(slot) < sequences_.size());
  const Sequence& sequence = sequences_[index_of(slot)];
  CHECK(sequence.used);
  return sequence;
}

Scheduler::Sequence& Scheduler::sequence_of(Slot slot) {
  return const_cast<Sequence&>(std::as_const(*this).sequence_of(slot));
}

}  // namespace kvasir::sched
