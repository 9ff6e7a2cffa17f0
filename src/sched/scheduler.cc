#include "sched/scheduler.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::sched {

Scheduler::Scheduler(const SchedulerLimits& limits, kv::Cache& cache, const base::Clock& clock)
    : limits_(limits),
      cache_(cache),
      clock_(clock),
      tenants_(limits.tenant_weights),
      places_of_(tenants_.count()),
      sequences_(limits.requests_max) {
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
  CHECK(spec.tenant < tenants_.count());
  const Slot slot = claim_slot(spec);
  Sequence& sequence = sequence_of(slot);
  for (uint32_t i = 0; i < spec.forks; ++i) {
    const Slot fork = claim_slot(spec);
    sequence_of(fork).claimed_by = slot;
    sequence.forks.push_back(fork);
  }
  sequence.tokens = std::move(spec.tokens);
  sequence.tokens.reserve(spec.tokens_max);
  sequence.prompt_tokens = sequence.size();
  sequence.priority = spec.priority;
  sequence.arrival = ++arrivals_;
  sequence.arrived_us = clock_.now_us();
  sequence.turn_us = sequence.arrived_us;
  sequence.places = std::min(1 + spec.forks, limits_.sequences_max);
  sequence.spec = std::move(spec);
  sequence.spec.tokens.clear();
  sequence.state = State::kWaiting;
  insert_in_order(waiting_, slot);
  return slot;
}

Slot Scheduler::claim_slot(const SequenceSpec& spec) {
  const Slot slot = free_slots_.back();
  free_slots_.pop_back();
  Sequence& sequence = sequences_[index_of(slot)];
  CHECK(sequence.state == State::kUnused);
  sequence = {};
  sequence.state = State::kIdle;
  sequence.spec.tenant = spec.tenant;
  tenants_.arrived(spec.tenant);
  sequence.tokens.reserve(spec.tokens_max);
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
  target.arrived_us = parent.arrived_us;
  target.turn_us = parent.turn_us;
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
  tenants_.left(sequence.spec.tenant);
  sequence = {};
  free_slots_.push_back(slot);
  for (const Slot fork : forks) remove(fork);
}

void Scheduler::pause(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  if (sequence.state != State::kWaiting && sequence.state != State::kRunning) return;
  CHECK(!sequence.reservation);
  leave_lists(slot);
  stop_waiting(sequence);
  sequence.lease.reset();
  sequence.computed = 0;
  sequence.probed = false;
  sequence.state = State::kPaused;
}

void Scheduler::resume(Slot slot) {
  Sequence& sequence = sequence_of(slot);
  if (sequence.state != State::kPaused) return;
  sequence.state = State::kWaiting;
  insert_in_order(waiting_, slot);
}

void Scheduler::leave_lists(Slot slot) {
  const State state = sequence_of(slot).state;
  if (state == State::kWaiting) CHECK(std::erase(waiting_, slot) == 1);
  if (state == State::kRunning) CHECK(std::erase(running_, slot) == 1);
}

void Scheduler::complete(const PlannedRows& rows) {
  if (rows_planned_ > 0) {
    const uint32_t prompt_rows = prefill_budget_ - prefill_left_;
    costs_.note(rows_planned_ - prompt_rows, prompt_rows, clock_.now_us() - now_us_);
  }
  rows_planned_ = 0;  // once a step
  Sequence& sequence = sequence_of(rows.slot);
  const bool decodes = rows.first_position >= sequence.prompt_tokens;
  tenants_.serve(sequence.spec.tenant, decodes ? 0 : rows.tokens, decodes ? rows.tokens : 0);
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
  std::array<uint32_t, 6> states{};
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
  const double first_had = tenants_.had(first.spec.tenant);
  const double second_had = tenants_.had(second.spec.tenant);
  if (first_had != second_had) return first_had < second_had;
  if (first.priority != second.priority) return first.priority > second.priority;
  if (first.turn_us != second.turn_us) return first.turn_us < second.turn_us;
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

// Within plan(), where many questions are asked for each change.
void Scheduler::count_places() {
  std::ranges::fill(places_of_, 0);
  for (const Slot slot : running_) {
    const Sequence& sequence = sequence_of(slot);
    places_of_[sequence.spec.tenant] += sequence.places;
  }
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
