// Scheduler: what the next step computes, and who joins or gives way for it.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "sched/scheduler.h"

namespace kvasir::sched {
namespace {

// Blocks left free when a sequence is admitted beside others, as a share of all: room for the
// others to grow before anyone must be preempted.
constexpr uint32_t kWatermarkShare = 32;
// How much longer than computing a prefix itself a request waits for another to compute it.
constexpr double kPromisePatience = 1.5;
// Prompt rows of a step however long its decode rows take.
constexpr uint32_t kPromptRowsMin = 32;
// Where a tenant holds more than its share beside others, steps are so many times shorter.
constexpr uint32_t kCrowdedShortening = 2;
constexpr uint32_t kCrowdedPromptRowsMin = 8;
constexpr double kCachedCreditMaxUs = 2e6;
// Steps in a row that answers of tenants above their share leave to prompts of others.
constexpr uint32_t kAsidesMax = 3;

}  // namespace

std::span<const PlannedRows> Scheduler::plan() {
  now_us_ = clock_.now_us();
  cache_.set_now(now_us_);
  plan_.clear();
  rows_planned_ = 0;
  order_by_turn();
  count_places();
  yield_places();
  asides_ = asides_ < kAsidesMax && has_urgent_prompt() ? asides_ + 1 : 0;
  prefill_budget_ = prefill_budget();
  prefill_left_ = prefill_budget_;
  logit_rows_left_ = limits_.logit_rows_max - running();
  plan_running();
  plan_waiting();
  if (plan_.empty() && std::exchange(asides_, 0) > 0) {
    prefill_budget_ = prefill_left_ = prefill_budget();
    plan_running();
    plan_waiting();
  }
  while (plan_.empty() && give_up_one()) {
    plan_running();
    plan_waiting();
  }
  if (std::exchange(turns_changed_, false)) sort_lists();
  stats_.running_peak = std::max(stats_.running_peak, running());
  return plan_;
}

// Prompt rows of this step: so many that the answers under way do not stutter, but never so few
// that prompts stand still.
uint32_t Scheduler::prefill_budget() const {
  if (limits_.step_target_us == 0) return limits_.prefill_chunk;
  const auto decoding = static_cast<uint32_t>(std::ranges::count_if(running_, [&](Slot slot) {
    const Sequence& sequence = sequence_of(slot);
    return sequence.size() - sequence.computed == 1 &&
           sequence.computed >= sequence.prompt_tokens && !steps_aside(sequence);
  }));
  if (decoding == 0) return limits_.prefill_chunk;
  const bool crowded = asides_ == 0 && is_crowded();
  const uint64_t target_us = limits_.step_target_us / (crowded ? kCrowdedShortening : 1);
  const uint32_t rows = costs_.prompt_rows_within(decoding, target_us);
  const uint32_t least = crowded ? kCrowdedPromptRowsMin : kPromptRowsMin;
  return std::min(std::max(rows, least), limits_.prefill_chunk);
}

// Whether a tenant holds more than its share beside another. The other's next prompt waits for the
// step that runs, and its answers for every one of them.
bool Scheduler::is_crowded() const {
  return tenants_.active() > 1 && std::ranges::any_of(running_, [&](Slot slot) {
           return is_above_share(sequence_of(slot).spec.tenant);
         });
}

bool Scheduler::has_places(const Sequence& sequence) const {
  return places_running() + sequence.places <= limits_.sequences_max;
}

// A share of less than one place is one place.
double Scheduler::share_of(uint32_t tenant) const {
  return std::max(1.0, tenants_.share(tenant, limits_.sequences_max));
}

bool Scheduler::stays_in_share(const Sequence& sequence) const {
  const uint32_t tenant = sequence.spec.tenant;
  return places_of_[tenant] + sequence.places <= share_of(tenant);
}

bool Scheduler::is_above_share(uint32_t tenant) const {
  return places_of_[tenant] > share_of(tenant);
}

// Whose turn it is changes with what every tenant has had.
void Scheduler::order_by_turn() {
  if (tenants_.active() < 2) return;
  tenants_.refresh_order();
  sort_lists();
}

void Scheduler::sort_lists() {
  for (std::vector<Slot>* list : {&waiting_, &running_}) {
    std::ranges::sort(*list, [&](Slot a, Slot b) { return goes_before(a, b); });
  }
}

// The first in order has no place: if it is entitled to one that another holds, that one is
// preempted before anything of it is planned. Who wants several places gets them one by one, for
// nobody is admitted before it meanwhile.
void Scheduler::yield_places() {
  const auto first =
      std::ranges::find_if(waiting_, [&](Slot slot) { return !keeps_waiting(sequence_of(slot)); });
  if (first == waiting_.end()) return;
  const Sequence& sequence = sequence_of(*first);
  if (has_places(sequence) && !sequence.short_of_blocks) return;
  const auto victim = std::find_if(running_.rbegin(), running_.rend(), [&](Slot running) {
    return yields_to(sequence_of(running), sequence);
  });
  if (victim != running_.rend()) preempt(*victim);
}

// Whether a tenant within its share has a prompt to compute beside answers of one above its own.
// These then leave steps to it, though never more than kAsidesMax in a row: so its first token does
// not wait for how long their steps are, and they do not stand still.
bool Scheduler::has_urgent_prompt() const {
  if (limits_.step_target_us == 0 || !is_crowded()) return false;
  const bool computes = std::ranges::any_of(running_, [&](Slot slot) {
    const Sequence& sequence = sequence_of(slot);
    return sequence.computed < sequence.prompt_tokens && !is_above_share(sequence.spec.tenant);
  });
  const auto first =
      std::ranges::find_if(waiting_, [&](Slot slot) { return !sequence_of(slot).awaited; });
  if (computes || first == waiting_.end()) return computes;
  const Sequence& next = sequence_of(*first);
  return stays_in_share(next) && has_places(next) && !next.short_of_blocks;
}

// In the step that is planned.
bool Scheduler::steps_aside(const Sequence& sequence) const {
  return asides_ > 0 && is_above_share(sequence.spec.tenant);
}

// To a higher priority of the same tenant; and whoever holds more than its tenant's share to one
// whose tenant stays within its own.
bool Scheduler::yields_to(const Sequence& running, const Sequence& waiting) const {
  if (is_protected(running)) return false;
  const uint32_t holder = running.spec.tenant;
  if (holder == waiting.spec.tenant) return running.priority < waiting.priority;
  return is_above_share(holder) && stays_in_share(waiting);
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
    if (steps_aside(sequence_of(slot))) continue;
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
  count_places();
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
  bool blocked = false;  // somebody lacks places: they are not for those behind it
  for (size_t i = 0; i < waiting_.size();) {
    const Slot slot = waiting_[i];
    Sequence& sequence = sequence_of(slot);
    if (keeps_waiting(sequence)) {
      ++i;
      continue;
    }
    // Also where nobody can be admitted, new requests learn what to wait for.
    const bool admits = !blocked && prefill_left_ > 0 && logit_rows_left_ > 0 &&
                        has_places(sequence) && (asides_ == 0 || stays_in_share(sequence));
    if (!admits && sequence.probed) {
      blocked = true;
      ++i;
      continue;
    }
    const kv::Probe probe = cache_.probe(cache_spec(sequence));
    note_probe(sequence, probe);
    if (waits_for_promise(sequence, probe)) {
      ++i;
      continue;
    }
    sequence.short_of_blocks = admits && (!fits(probe) || !admit(slot));
    if (!admits || sequence.short_of_blocks) return;  // nobody overtakes it
    plan_rows(slot);
  }
}

// A request that is mostly cached costs little: it goes before others as if it had come earlier by
// what the cache saves, but not by more than the cap, so that it can not make others wait for long.
void Scheduler::note_probe(Sequence& sequence, const kv::Probe& probe) {
  if (!std::exchange(sequence.probed, true)) {
    const double saved_us = probe.tokens_cached * costs_.prompt_row_us();
    const auto credit_us = static_cast<uint64_t>(std::min(saved_us, kCachedCreditMaxUs));
    const uint64_t turn_us = sequence.arrived_us - std::min(sequence.arrived_us, credit_us);
    turns_changed_ |= std::exchange(sequence.turn_us, turn_us) != turn_us;
  }
}

// Whether a sequence may join: its whole prompt must fit beside what running prompts still need.
bool Scheduler::fits(const kv::Probe& probe) const {
  const uint32_t available = cache_.blocks_available();
  if (cache_.mode() == kv::CacheMode::kContiguous) return true;  // open() knows
  if (running_.empty()) return true;  // whatever is not pinned is its own: add() knows it fits
  uint64_t wanted = probe.blocks_wanted;
  if (!plan_.empty() || asides_ > 0) wanted += cache_.blocks_capacity() / kWatermarkShare + 1;
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
  count_places();
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
  sequence.patience_us =
      static_cast<uint64_t>(kPromisePatience * own_rows * costs_.prompt_row_us());
  if (patience_ends(sequence)) return false;
  sequence.awaited = probe.promised;
  hurry_owner(*probe.promised, sequence.priority);
  return true;
}

bool Scheduler::patience_ends(const Sequence& sequence) const {
  return costs_.prompt_row_us() > 0.0 && now_us_ - *sequence.waits_since_us > sequence.patience_us;
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

}  // namespace kvasir::sched
