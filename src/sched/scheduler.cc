#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::sched {
namespace {

// Blocks left free when a sequence is admitted beside others, as a share of all: room for the
// others to grow before anyone must be preempted.
constexpr uint32_t kWatermarkShare = 32;
// How much longer than computing a prefix itself a request waits for another to compute it.
constexpr double kPromisePatience = 1.5;
constexpr double kSpeedSmoothing = 0.2;

}  // namespace

Scheduler::Scheduler(const SchedulerLimits& limits, kv::Cache& cache, const base::Clock& clock)
    : limits_(limits), cache_(cache), clock_(clock), sequences_(limits.requests_max) {
  CHECK(limits.sequences_max > 0);
  CHECK(limits.requests_max >= limits.sequences_max);
  CHECK(limits.prefill_chunk > 0);
  CHECK(limits.logit_rows_max >= limits.sequences_max);
  free_slots_.reserve(limits.requests_max);
  for (uint32_t i = limits.requests_max; i-- > 0;) free_slots_.push_back(Slot{i});
  waiting_.reserve(limits.requests_max);
  running_.reserve(limits.sequences_max);
  plan_.reserve(limits.sequences_max);
}

Slot Scheduler::add(SequenceSpec spec) {
  CHECK(has_room(1 + spec.forks));
  CHECK(!spec.tokens.empty());
  CHECK(spec.tokens_max >= spec.tokens.size());
  CHECK(cache_.can_ever_fit(spec.tokens_max, static_cast<uint32_t>(spec.encoder.size())));
  const Slot slot = claim_slot(spec.tokens_max);
  Sequence& sequence = sequence_of(slot);
  for (uint32_t i = 0; i < spec.forks; ++i) {
    const Slot fork = claim_slot(spec.tokens_max);
    sequence_of(fork).claimed_by = slot;
    sequence.forks.push_back(fork);
  }
  sequence.tokens = std::move(spec.tokens);
  sequence.tokens.reserve(spec.tokens_max);
  sequence.prompt_tokens = sequence.size();
  sequence.priority = spec.priority;
  sequence.arrival = ++arrivals_;
  sequence.places = std::min(1 + spec.forks, limits_.sequences_max);
  sequence.spec = std::move(spec);
  sequence.spec.tokens.clear();
  sequence.state = State::kWaiting;
  insert_in_order(waiting_, slot);
  return slot;
}

Slot Scheduler::claim_slot(uint32_t tokens_max) {
  const Slot slot = free_slots_.back();
  free_slots_.pop_back();
  Sequence& sequence = sequences_[index_of(slot)];
  CHECK(sequence.state == State::kUnused);
  sequence = {};
  sequence.state = State::kIdle;
  sequence.tokens.reserve(tokens_max);
  return slot;
}

void Scheduler::fork(Slot parent_slot, Slot target_slot) {
  retire(target_slot);
  Sequence& parent = sequence_of(parent_slot);
  Sequence& target = sequence_of(target_slot);
  if (target.claimed_by) {
    Sequence& claimer = sequence_of(*std::exchange(target.claimed_by, std::nullopt));
    CHECK(std::erase(claimer.forks, target_slot) == 1);
    if (claimer.places > 1) --claimer.places;
  }
  target.tokens.assign(parent.tokens.begin(), parent.tokens.end());
  target.spec = parent.spec;
  target.prompt_tokens = parent.prompt_tokens;
  target.priority = parent.priority;
  target.arrival = parent.arrival;
  target.prompt_scored = true;
  target.counted = true;
  target.stats.match = parent.stats.match;
  if (parent.state == State::kRunning && running_.size() < limits_.sequences_max) {
    target.lease = cache_.fork(*parent.lease);
  }
  target.computed = target.lease ? parent.computed : 0;
  target.state = target.lease ? State::kRunning : State::kWaiting;
  insert_in_order(target.lease ? running_ : waiting_, target_slot);
}

void Scheduler::retire(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  CHECK(!sequence.reservation);
  leave_lists(slot);
  if (sequence.lease) cache_.discard(*std::exchange(sequence.lease, std::nullopt));
  sequence.state = State::kIdle;
  sequence.computed = 0;
  sequence.protected_until = 0;
}

void Scheduler::remove(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  CHECK(!sequence.reservation);
  leave_lists(slot);
  const std::vector<Slot> forks = std::move(sequence.forks);
  sequence = {};
  free_slots_.push_back(slot);
  for (const Slot fork : forks) remove(fork);
}

void Scheduler::leave_lists(Slot slot) {
  const State state = sequence_of(slot).state;
  if (state == State::kWaiting) CHECK(std::erase(waiting_, slot) == 1);
  if (state == State::kRunning) CHECK(std::erase(running_, slot) == 1);
}

std::span<const PlannedRows> Scheduler::plan() {
  now_us_ = clock_.now_us();
  cache_.set_now(now_us_);
  plan_.clear();
  prefill_left_ = limits_.prefill_chunk;
  logit_rows_left_ = limits_.logit_rows_max - running();
  rows_planned_ = 0;
  plan_running();
  plan_waiting();
  while (plan_.empty() && give_up_one()) {
    plan_running();
    plan_waiting();
  }
  stats_.running_peak = std::max(stats_.running_peak, running());
  return plan_;
}

// Where nobody gets on: beams that are computed wait for others that have no room; with several
// groups what is kept back for protected sequences may not do. In the end the first in order has
// everything.
bool Scheduler::give_up_one() {
  for (size_t i = running_.size(); i-- > 0;) {
    const Sequence& sequence = sequence_of(running_[i]);
    if (sequence.computed < sequence.size()) continue;
    preempt(running_[i]);
    return true;
  }
  if (running_.size() < 2) return false;
  preempt(running_.back());
  return true;
}

// Whoever is preempted stands behind the one it is preempted for: its rows are not planned yet.
void Scheduler::plan_running() {
  refresh_kept_back();
  for (size_t i = 0; i < running_.size(); ++i) {
    const Slot slot = running_[i];
    while (plan_rows(slot) == Try::kNoBlocks) {
      if (!preempt_for(slot)) break;  // it keeps its blocks and tries again in the next step
    }
  }
}

Scheduler::Try Scheduler::plan_rows(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  const uint32_t pending = sequence.size() - sequence.computed;
  if (pending == 0) return Try::kPlanned;  // its logits are known, the next token is not
  const bool scores = sequence.scoring();
  uint32_t tokens = pending;
  if (pending > 1) tokens = std::min(tokens, prefill_left_);
  if (scores) tokens = std::min(tokens, logit_rows_left_ + 1);  // one row of logits is its own
  if (tokens == 0) return Try::kNoBudget;
  const uint32_t end = sequence.computed + tokens;
  sequence.reservation = cache_.reserve(*sequence.lease, end, kept_back_for_others(sequence));
  if (!sequence.reservation) return Try::kNoBlocks;
  if (is_protected(sequence)) refresh_kept_back();
  if (pending > 1) prefill_left_ -= tokens;
  if (scores) logit_rows_left_ -= tokens - 1;
  rows_planned_ += tokens;
  plan_.push_back({.slot = slot,
                   .first_position = sequence.computed,
                   .tokens = tokens,
                   .samples = end == sequence.size(),
                   .scores = scores});
  return Try::kPlanned;
}

// Takes the blocks of the last in order that may be preempted and stands behind `slot`.
bool Scheduler::preempt_for(Slot slot) {
  for (size_t i = running_.size(); i-- > 0 && running_[i] != slot;) {
    const Slot victim = running_[i];
    if (is_protected(sequence_of(victim))) continue;
    preempt(victim);
    return true;
  }
  return false;
}

void Scheduler::preempt(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  leave_lists(slot);
  sequence.lease.reset();
  const bool computed = sequence.computed == sequence.size();
  sequence.computed = 0;
  sequence.protected_until = sequence.size();
  sequence.probed = false;
  ++sequence.stats.preemptions;
  ++stats_.preemptions;
  sequence.state = computed ? State::kParked : State::kWaiting;
  if (!computed) insert_in_order(waiting_, slot);
}

// It has been preempted and has gained no token since: the row that samples is not computed yet.
bool Scheduler::is_protected(const Sequence& sequence) const {
  return sequence.computed < sequence.protected_until;
}

void Scheduler::refresh_kept_back() {
  kept_back_ = 0;
  for (const Slot slot : running_) {
    const Sequence& sequence = sequence_of(slot);
    if (is_protected(sequence)) kept_back_ += blocks_to_come(sequence);
  }
}

// Blocks that sequences which may not be preempted still need to get on.
uint32_t Scheduler::kept_back_for_others(const Sequence& sequence) const {
  if (kept_back_ == 0 || !is_protected(sequence)) return kept_back_;
  return kept_back_ - std::min(kept_back_, blocks_to_come(sequence));
}

// Until everything known of the sequence is computed; one more for a shared block it must copy.
uint32_t Scheduler::blocks_to_come(const Sequence& sequence) const {
  const uint32_t wanted = cache_.blocks_for(sequence.size());
  const uint32_t held = cache_.blocks_held(*sequence.lease);
  const bool copies = sequence.computed < sequence.size() && cache_.copies_tail(*sequence.lease);
  return wanted - std::min(wanted, held) + (copies ? 1 : 0);
}

void Scheduler::plan_waiting() {
  for (size_t i = 0; i < waiting_.size();) {
    const Slot slot = waiting_[i];
    Sequence& sequence = sequence_of(slot);
    if (keeps_waiting(sequence)) {
      ++i;
      continue;
    }
    // Also where nobody can be admitted, new requests learn what to wait for.
    const bool admits = prefill_left_ > 0 && logit_rows_left_ > 0 &&
                        places_running() + sequence.places <= limits_.sequences_max;
    if (!admits && sequence.probed) {
      ++i;
      continue;
    }
    const kv::Probe probe = cache_.probe(cache_spec(sequence));
    sequence.probed = true;
    if (waits_for_promise(sequence, probe)) {
      ++i;
      continue;
    }
    if (!admits || !fits(probe) || !admit(slot)) return;  // nobody overtakes it
    plan_rows(slot);
  }
}

// Whether a sequence may join: its whole prompt must fit beside what running prompts still need.
bool Scheduler::fits(const kv::Probe& probe) const {
  const uint32_t available = cache_.blocks_available();
  if (cache_.mode() == kv::CacheMode::kContiguous) return true;  // open() knows
  if (running_.empty()) return true;  // whatever is not pinned is its own: add() knows it fits
  uint64_t wanted = probe.blocks_wanted;
  if (!plan_.empty()) wanted += cache_.blocks_capacity() / kWatermarkShare + 1;
  for (const Slot slot : running_) wanted += blocks_to_come(sequence_of(slot));
  return available >= wanted;
}

bool Scheduler::admit(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  std::optional<kv::Opened> opened = cache_.open(cache_spec(sequence));
  if (!opened) return false;
  leave_lists(slot);
  sequence.lease.emplace(std::move(opened->lease));
  sequence.computed = opened->match.tokens_cached;
  sequence.state = State::kRunning;
  if (!sequence.counted) sequence.stats.match = opened->match;
  sequence.counted = true;
  stop_waiting(sequence);
  insert_in_order(running_, slot);
  if (is_protected(sequence)) refresh_kept_back();
  --logit_rows_left_;
  return true;
}

// Whether what it waits for is still to come and worth it.
bool Scheduler::keeps_waiting(Sequence& sequence) {
  if (!sequence.awaited) return false;
  if (cache_.is_promised(*sequence.awaited)) {
    if (!patience_ends(sequence)) return true;
    ++stats_.promise_waits_expired;
  }
  sequence.awaited.reset();
  return false;
}

// A promise of a running sequence is worth waiting for, but not for ever.
bool Scheduler::waits_for_promise(Sequence& sequence, const kv::Probe& probe) {
  if (!probe.promised) return false;
  if (!sequence.waits_since_us) {
    sequence.waits_since_us = now_us_;
    ++stats_.promise_waits;
  }
  const uint32_t own_rows = sequence.size() - probe.tokens_cached;
  sequence.patience_us = static_cast<uint64_t>(kPromisePatience * own_rows * row_us_);
  if (patience_ends(sequence)) return false;
  sequence.awaited = probe.promised;
  hurry_owner(*probe.promised, sequence.priority);
  return true;
}

bool Scheduler::patience_ends(const Sequence& sequence) const {
  return row_us_ > 0.0 && now_us_ - *sequence.waits_since_us > sequence.patience_us;
}

// Whoever computes what a more urgent request waits for is as urgent.
void Scheduler::hurry_owner(kv::NodeRef promised, int32_t priority) {
  const auto owner = std::ranges::find_if(
      running_, [&](Slot slot) { return cache_.has_promised(*sequence_of(slot).lease, promised); });
  if (owner == running_.end() || sequence_of(*owner).priority >= priority) return;
  const Slot slot = *owner;
  running_.erase(owner);
  sequence_of(slot).priority = priority;
  insert_in_order(running_, slot);
}

void Scheduler::stop_waiting(Sequence& sequence) {
  if (sequence.waits_since_us) {
    sequence.stats.promise_wait_us += now_us_ - *sequence.waits_since_us;
  }
  sequence.waits_since_us.reset();
  sequence.awaited.reset();
}

void Scheduler::complete(const PlannedRows& rows) {
  // Steps that mostly decode say nothing about how long a prompt takes.
  const uint32_t prompt_rows = limits_.prefill_chunk - prefill_left_;
  if (rows_planned_ > 0 && 2 * prompt_rows >= rows_planned_) {
    const double us = static_cast<double>(clock_.now_us() - now_us_) / rows_planned_;
    row_us_ = row_us_ == 0.0 ? us : row_us_ + kSpeedSmoothing * (us - row_us_);
  }
  rows_planned_ = 0;  // once a step
  Sequence& sequence = sequence_of(rows.slot);
  CHECK(sequence.computed == rows.first_position);
  CHECK(sequence.reservation);
  sequence.computed += rows.tokens;
  CHECK(sequence.computed <= sequence.size());
  cache_.append(*std::exchange(sequence.reservation, std::nullopt),
                std::span(sequence.tokens).subspan(rows.first_position, rows.tokens));
  sequence.prompt_scored |= sequence.computed >= sequence.prompt_tokens;
}

void Scheduler::append_token(Slot slot, TokenId token) {
  Sequence& sequence = sequence_of(slot);
  CHECK(sequence.state != State::kRunning || sequence.computed == sequence.size());
  CHECK(sequence.size() < sequence.spec.tokens_max);
  sequence.tokens.push_back(token);
  if (sequence.state == State::kParked) {
    sequence.state = State::kWaiting;
    insert_in_order(waiting_, slot);
  }
  if (cache_.mode() == kv::CacheMode::kNone && sequence.lease) {
    // The naive engine remembers nothing: the next token starts from the first one again.
    cache_.truncate(*sequence.lease, 0);
    sequence.computed = 0;
  }
}

const kv::Lease& Scheduler::lease(Slot slot) const {
  const Sequence& sequence = sequence_of(slot);
  CHECK(sequence.state == State::kRunning);
  return *sequence.lease;
}

void Scheduler::check_invariants() const {
  std::array<uint32_t, 5> states{};
  for (const Sequence& sequence : sequences_) {
    ++states[static_cast<size_t>(sequence.state)];
    CHECK(sequence.lease.has_value() == (sequence.state == State::kRunning));
    CHECK(sequence.lease.has_value() || !sequence.reservation);
    CHECK(sequence.computed <= sequence.size());
    CHECK(sequence.state == State::kIdle || sequence.size() <= sequence.spec.tokens_max);
    if (sequence.lease) CHECK(cache_.tokens(*sequence.lease) == sequence.computed);
  }
  CHECK(states[static_cast<size_t>(State::kUnused)] == free_slots_.size());
  CHECK(states[static_cast<size_t>(State::kWaiting)] == waiting_.size());
  CHECK(states[static_cast<size_t>(State::kRunning)] == running_.size());
  CHECK(running_.size() <= limits_.sequences_max);
  for (const std::vector<Slot>* list : {&waiting_, &running_}) {
    CHECK(std::ranges::is_sorted(*list, [&](Slot a, Slot b) { return goes_before(a, b); }));
  }
}

kv::SequenceSpec Scheduler::cache_spec(const Sequence& sequence) const {
  return {.domain = sequence.spec.domain,
          .prompt = sequence.tokens,
          .tokens_max = sequence.spec.tokens_max,
          .encoder = sequence.spec.encoder,
          .retention = sequence.spec.retention,
          // A prompt that is to be scored is computed whole, once.
          .reads_cache = sequence.spec.reads_cache && !sequence.scoring(),
          .counts = !sequence.counted};
}

bool Scheduler::goes_before(Slot a, Slot b) const {
  const Sequence& first = sequence_of(a);
  const Sequence& second = sequence_of(b);
  if (first.priority != second.priority) return first.priority > second.priority;
  if (first.arrival != second.arrival) return first.arrival < second.arrival;
  return a < b;
}

void Scheduler::insert_in_order(std::vector<Slot>& list, Slot slot) {
  CHECK(list.size() < list.capacity());
  const auto place =
      std::ranges::upper_bound(list, slot, [&](Slot a, Slot b) { return goes_before(a, b); });
  list.insert(place, slot);
}

uint32_t Scheduler::places_running() const {
  uint32_t places = 0;
  for (const Slot slot : running_) places += sequence_of(slot).places;
  return places;
}

const Scheduler::Sequence& Scheduler::sequence_of(Slot slot) const {
  CHECK(index_of(slot) < sequences_.size());
  const Sequence& sequence = sequences_[index_of(slot)];
  CHECK(sequence.state != State::kUnused);
  return sequence;
}

Scheduler::Sequence& Scheduler::sequence_of(Slot slot) {
  return const_cast<Sequence&>(std::as_const(*this).sequence_of(slot));
}

}  // namespace kvasir::sched
