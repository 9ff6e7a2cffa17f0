// What runs next. Deterministic decisions over sequences, the cache and fixed limits; no time, no
// randomness, no threads.
//
// Policy: every sequence that needs one row (a decode) gets it in every step; what is left of the
// step goes to the prompts, oldest first, at most `prefill_chunk` tokens a step. Admission is in
// order of arrival: nobody overtakes.
//
// Thread: engine thread only. Allocates: constructor only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/cache.h"

namespace kvasir::sched {

// Index of a request's place in the scheduler, from add() to remove(); the engine keeps its own
// state of the request under the same index.
enum class Slot : uint32_t {};
constexpr uint32_t index_of(Slot slot) {
  return static_cast<uint32_t>(slot);
}

struct SchedulerLimits {
  uint32_t requests_max = 0;    // waiting and running together
  uint32_t sequences_max = 0;   // running
  uint32_t prefill_chunk = 0;   // prompt tokens of a step
  uint32_t logit_rows_max = 0;  // >= sequences_max

  uint32_t rows_max() const { return prefill_chunk + sequences_max; }
};

// What a sequence asks for when it arrives.
struct SequenceSpec {
  uint32_t prompt_tokens = 0;  // >= 1
  uint32_t tokens_max = 0;     // prompt and answer together
  uint32_t tokens_cached = 0;  // leading prompt tokens that its lease already holds
  bool score_prompt = false;   // logits of every prompt row, not only of the last
};

// Rows of one sequence in the step to come.
struct PlannedRows {
  Slot slot{};
  uint32_t first_position = 0;
  uint32_t tokens = 0;
  bool samples = false;  // the last row is the newest token: its logits choose the next one
  bool scores = false;   // logits of all these rows are wanted
};

class Scheduler {
 public:
  // `cache` must outlive the scheduler.
  Scheduler(const SchedulerLimits& limits, kv::Cache& cache);

  // A new request at the end of the queue. Requires: !full(); it can fit (cache.admission() is not
  // kNever), or it brings a lease of an earlier turn that was opened for at least tokens_max.
  Slot add(const SequenceSpec& spec, std::optional<kv::Lease> lease = std::nullopt);
  bool full() const { return free_slots_.empty(); }
  // Ends a request in any state and hands its lease back; dropping that frees its blocks.
  std::optional<kv::Lease> remove(Slot slot);

  // Admits what fits and decides the next step; cache slots for it are in place when it returns.
  // Empty: nothing to do. Valid until the next call.
  std::span<const PlannedRows> plan();
  // The planned rows have been computed.
  void complete(const PlannedRows& rows);
  // The engine chose a token: it will need a row in a later step.
  void append_token(Slot slot);

  bool idle() const { return waiting_count_ == 0 && running_.empty(); }
  uint32_t running() const { return static_cast<uint32_t>(running_.size()); }
  uint32_t waiting() const { return waiting_count_; }
  // Requires: the request is running.
  const kv::Lease& lease(Slot slot) const;
  // Leading tokens whose keys and values are in the cache.
  uint32_t tokens_computed(Slot slot) const;

  void check_invariants() const;

 private:
  // tokens: 0 ........ computed ........ tokens ........ spec.tokens_max
  //         |- in the cache -|- to compute -|- not known yet -|
  struct Sequence {
    SequenceSpec spec;
    uint32_t tokens = 0;
    uint32_t computed = 0;
    bool used = false;
    bool running = false;
    bool prompt_scored = false;      // mode kNone computes the prompt again, but scores it once
    std::optional<kv::Lease> lease;  // running, or brought along

    bool scoring() const { return spec.score_prompt && !prompt_scored; }
  };

  void admit();
  void plan_rows(Slot slot, uint32_t tokens);
  Sequence& sequence_of(Slot slot);
  const Sequence& sequence_of(Slot slot) const;
  void leave_queue(Slot slot);

  SchedulerLimits limits_;
  kv::Cache& cache_;
  std::vector<Sequence> sequences_;  // [requests_max], by slot
  std::vector<Slot> free_slots_;
  std::vector<Slot> waiting_;  // a ring of requests_max, from waiting_first_
  uint32_t waiting_first_ = 0;
  uint32_t waiting_count_ = 0;
  std::vector<Slot> running_;  // oldest first
  std::vector<PlannedRows> plan_;
  uint32_t logit_rows_left_ = 0;  // of the plan being made
};

}  // namespace kvasir::sched
