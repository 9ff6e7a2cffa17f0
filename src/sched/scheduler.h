// What runs next. Deterministic decisions over sequences, the cache, a clock and fixed limits; no
// randomness, no threads.
//
// Order: by what the tenant has had so far, then by priority, then by arrival, where a request that
// is mostly cached counts as come earlier. In that order every running sequence gets its rows: a
// decode its one row, prompts together at most `prefill_chunk` tokens a step, and no more than lets
// the step end in time where answers are under way. Slots are reserved for this step only.
//
// Answers of tenants above their share leave three of four steps to prompts of one within its own.
//
// Where places are short, nobody overtakes the first who waits for some.
// It gets that of a lower priority of its tenant, or of a tenant that holds more than its share.
// Where blocks are short, the last in order is preempted: its blocks stay cached until others need
// them, and it waits to be admitted again. Nobody is preempted twice without having gained a token
// in between: until then the blocks it still needs are kept back for it.
//
// Early reuse: a request whose prompt goes on with blocks that a running sequence has promised
// waits for them, at most 1.5 times what computing them itself would take, holding nothing.
//
// Thread: engine thread only. Allocates: constructor and add() only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "kv/cache.h"
#include "sched/step_costs.h"
#include "sched/tenants.h"

namespace kvasir::sched {

// Index of a sequence's place in the scheduler, from add() to remove(); the engine keeps its own
// state of the sequence under the same index.
enum class Slot : uint32_t {};
constexpr uint32_t index_of(Slot slot) {
  return static_cast<uint32_t>(slot);
}

struct SchedulerLimits {
  uint32_t requests_max = 0;           // sequences waiting and running together
  uint32_t sequences_max = 0;          // running
  uint32_t prefill_chunk = 0;          // prompt tokens of a step
  uint32_t logit_rows_max = 0;         // >= sequences_max
  uint64_t step_target_us = 0;         // prompts leave steps with answers so short; 0: no bound
  std::vector<double> tenant_weights;  // by tenant; empty: there is one

  uint32_t rows_max() const { return prefill_chunk + sequences_max; }
};

// What a sequence asks for when it arrives.
struct SequenceSpec {
  std::vector<TokenId> tokens;       // the prompt: at least one
  uint32_t tokens_max = 0;           // prompt and answer together
  std::span<const TokenId> encoder;  // input of the encoder; must outlive the sequence
  kv::CacheDomain domain;
  kv::Retention retention = kv::Retention::kNormal;
  int32_t priority = 0;       // higher goes first
  uint32_t tenant = 0;        // below the number of tenants
  bool reads_cache = true;    // false: computes its whole prompt, but publishes it
  bool score_prompt = false;  // logits of every prompt row, not only of the last
  uint32_t forks = 0;         // sequences that will be forked from it
};

// Rows of one sequence in the step to come.
struct PlannedRows {
  Slot slot{};
  uint32_t first_position = 0;
  uint32_t tokens = 0;
  bool samples = false;  // the last row is the newest token: its logits choose the next one
  bool scores = false;   // logits of all these rows are wanted
};

// What has happened to a sequence so far.
struct SequenceStats {
  std::optional<kv::MatchReport> match;  // at its first admission
  uint32_t preemptions = 0;
  uint64_t promise_wait_us = 0;  // spent waiting for blocks that others had promised
};

struct SchedulerStats {
  uint64_t preemptions = 0;
  uint64_t promise_waits = 0;          // requests that waited for a promise
  uint64_t promise_waits_expired = 0;  // and gave up
  uint32_t running_peak = 0;
};

class Scheduler {
 public:
  // `cache` and `clock` must outlive the scheduler.
  Scheduler(const SchedulerLimits& limits, kv::Cache& cache, const base::Clock& clock);

  // A new sequence, and places for its forks. Requires: has_room(1 + forks), it fits the cache.
  Slot add(SequenceSpec spec);
  bool has_room(uint32_t sequences) const { return free_slots_.size() >= sequences; }
  // The places claimed by add() for the forks of a sequence, not running yet.
  std::span<const Slot> forks(Slot slot) const { return sequence_of(slot).forks; }
  // Makes `target` a copy of `parent`, which has computed all its tokens: it shares all blocks.
  // Requires: `target` is a fork of the same sequence, idle or running.
  void fork(Slot parent, Slot target);
  // Ends a sequence in any state; its blocks stay cached. Forks are removed one by one.
  void remove(Slot slot);
  // Computes a sequence no further until resume(); its blocks go back to the cache. No effect on
  // one that does not wait or run.
  void pause(Slot slot);
  void resume(Slot slot);
  // Lets go of a sequence's blocks and rows but keeps its place for fork().
  void retire(Slot slot);

  // Admits what fits and decides the next step; cache slots for it are reserved when it returns.
  // Empty: nothing can run now. Valid until the next call.
  std::span<const PlannedRows> plan();
  // The planned rows have been computed.
  void complete(const PlannedRows& rows);
  // The engine chose a token: it will need a row in a later step.
  void append_token(Slot slot, TokenId token);

  bool idle() const { return waiting_.empty() && running_.empty(); }
  uint32_t running() const { return static_cast<uint32_t>(running_.size()); }
  uint32_t waiting() const { return static_cast<uint32_t>(waiting_.size()); }
  // Prompt and answer. Valid until the sequence ends.
  std::span<const TokenId> tokens(Slot slot) const { return sequence_of(slot).tokens; }
  const SequenceStats& stats_of(Slot slot) const { return sequence_of(slot).stats; }
  SchedulerStats stats() const { return stats_; }
  // Requires: the sequence is running.
  const kv::Lease& lease(Slot slot) const;
  bool is_running(Slot slot) const { return sequence_of(slot).state == State::kRunning; }
  // Its logits are known, its blocks were taken: it waits for append_token().
  bool is_parked(Slot slot) const { return sequence_of(slot).state == State::kParked; }
  bool is_paused(Slot slot) const { return sequence_of(slot).state == State::kPaused; }

  void check_invariants() const;

 private:
  // kParked: its logits are known and its blocks were taken; it waits for append_token().
  enum class State : uint8_t { kUnused, kIdle, kWaiting, kRunning, kParked, kPaused };

  // tokens: 0 ........ computed ........ tokens.size() ........ tokens_max
  //         |- in the cache -|- to compute -|- not known yet -|
  struct Sequence {
    State state = State::kUnused;
    SequenceSpec spec;            // as it was added, without its tokens
    std::vector<TokenId> tokens;  // capacity: tokens_max
    uint32_t prompt_tokens = 0;
    int32_t priority = 0;  // its own, or of who waits for what it computes
    uint64_t arrival = 0;
    uint64_t arrived_us = 0;
    uint64_t turn_us = 0;          // when it counts as arrived
    bool short_of_blocks = false;  // it was first in order, and could not be admitted for that
    bool prompt_scored = false;    // mode kNone computes the prompt again, but scores it once
    bool counted = false;          // its hits and misses
    uint32_t computed = 0;
    uint32_t protected_until = 0;    // tokens it must compute before it is preempted again
    std::vector<Slot> forks;         // places claimed for copies of it
    std::optional<Slot> claimed_by;  // whose fork it is going to be
    bool probed = false;             // since it last began to wait
    uint32_t places = 1;             // running places it takes when admitted
    std::optional<kv::NodeRef> awaited;
    std::optional<uint64_t> waits_since_us;
    uint64_t patience_us = 0;
    std::optional<kv::Lease> lease;              // running
    std::optional<kv::Reservation> reservation;  // planned; after the lease
    SequenceStats stats;

    bool scoring() const { return spec.score_prompt && !prompt_scored; }
    uint32_t size() const { return static_cast<uint32_t>(tokens.size()); }
  };

  Slot claim_slot(const SequenceSpec& spec);
  uint32_t prefill_budget() const;
  bool has_places(const Sequence& sequence) const;
  double share_of(uint32_t tenant) const;
  bool stays_in_share(const Sequence& sequence) const;
  bool is_above_share(uint32_t tenant) const;
  bool is_crowded() const;
  bool has_urgent_prompt() const;
  bool steps_aside(const Sequence& sequence) const;
  void order_by_turn();
  void sort_lists();
  void yield_places();
  bool yields_to(const Sequence& running, const Sequence& waiting) const;
  void note_probe(Sequence& sequence, const kv::Probe& probe);
  void plan_running();
  void plan_waiting();
  enum class Try : uint8_t { kPlanned, kNoBlocks, kNoBudget };
  Try plan_rows(Slot slot);
  bool preempt_for(Slot slot);
  void preempt(Slot slot);
  bool is_protected(const Sequence& sequence) const;
  bool give_up_one();
  void refresh_kept_back();
  uint32_t kept_back_for_others(const Sequence& sequence) const;
  uint32_t blocks_to_come(const Sequence& sequence) const;
  bool admit(Slot slot);
  bool fits(const kv::Probe& probe) const;
  bool keeps_waiting(Sequence& sequence);
  bool waits_for_promise(Sequence& sequence, const kv::Probe& probe);
  bool patience_ends(const Sequence& sequence) const;
  void hurry_owner(kv::NodeRef promised, int32_t priority);
  void stop_waiting(Sequence& sequence);
  kv::SequenceSpec cache_spec(const Sequence& sequence) const;
  bool goes_before(Slot a, Slot b) const;
  void insert_in_order(std::vector<Slot>& list, Slot slot);
  void leave_lists(Slot slot);
  uint32_t places_running() const;
  void count_places();
  Sequence& sequence_of(Slot slot);
  const Sequence& sequence_of(Slot slot) const;

  SchedulerLimits limits_;
  kv::Cache& cache_;
  const base::Clock& clock_;
  Tenants tenants_;
  std::vector<uint32_t> places_of_;  // running, by tenant
  StepCosts costs_;
  std::vector<Sequence> sequences_;  // [requests_max], by slot
  std::vector<Slot> free_slots_;
  std::vector<Slot> waiting_;  // in order
  std::vector<Slot> running_;  // in order
  uint64_t arrivals_ = 0;
  bool turns_changed_ = false;  // of waiting sequences, in this step
  SchedulerStats stats_;

  // The step being planned or computed.
  std::vector<PlannedRows> plan_;
  uint32_t prefill_budget_ = 0;
  uint32_t prefill_left_ = 0;
  uint32_t asides_ = 0;  // steps in a row, up to the planned one, left to prompts within a share
  uint32_t logit_rows_left_ = 0;
  uint64_t now_us_ = 0;
  uint32_t rows_planned_ = 0;
  uint32_t kept_back_ = 0;  // blocks that protected sequences still need
};

}  // namespace kvasir::sched
