// The loop: inbox -> plan -> forward -> sample -> outbox. Owns all mutable state of inference; the
// model, the cache and the scheduler are used from here and from nowhere else.
//
// Thread: one thread calls everything. It must live in base::ScopedFpEnv.
// Allocates: create() and submit(); step() never.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/clock.h"
#include "base/result.h"
#include "engine/beam.h"
#include "engine/request.h"
#include "kv/cache.h"
#include "model/model.h"
#include "model/transformer.h"
#include "sample/sampler.h"
#include "sched/scheduler.h"

namespace kvasir::engine {

// What an engine borrows; all of it must outlive the engine.
struct EngineParts {
  model::Model* model = nullptr;
  const kernels::KernelTable* kernels = nullptr;
  const base::Clock* clock = nullptr;
};

struct EngineStats {
  kv::CacheStats cache;
  sched::SchedulerStats scheduler;
  uint32_t running = 0;
  uint32_t waiting = 0;
  uint64_t pairs_computed = 0;
  uint64_t prompt_tokens_computed = 0;  // the part of pairs_computed that belongs to prompts
  uint64_t steps = 0;
};

class Engine {
 public:
  // Error: the cache does not fit its budget, or memory can not be had.
  static base::Result<std::unique_ptr<Engine>> create(const EngineParts& parts,
                                                      const kv::CacheOptions& cache,
                                                      const sched::SchedulerLimits& limits);

  // Error: the first thing wrong with the request: token ids, lengths, sampling values, or more
  // tokens than the cache can ever hold.
  base::Status check(const Request& request) const;
  // Whether submit() may be called now: the queue has room. If not, try again when something has
  // finished.
  bool can_submit(const Request& request) const;
  // Takes a request in. Requires: check() passed, can_submit().
  SequenceId submit(Request request);

  // Longest prompt plus answer that can run.
  uint32_t sequence_tokens_limit() const;

  // Ends a request at once, whatever its state; returns what it has cost so far, valid until the
  // next step. nullptr: no such request (it has finished).
  const RequestStats* cancel(SequenceId id);
  // The same for one of its choices; until the prompt is computed, and in a beam search, for all.
  const RequestStats* cancel(SequenceId id, uint32_t choice);

  // Whether some of its rows have been computed, or it has ended.
  bool has_begun(SequenceId id) const;

  // Computes a request no further until resume(); its blocks go back to the cache, so that it holds
  // nothing. Beam searches are not paused. No effect on one that has ended.
  void pause(SequenceId id);
  void resume(SequenceId id);

  // Forgets everything cached. Refused while requests are in the engine; pins are let go.
  kv::ResetResult reset_cache();

  // One step of all that runs. The events are valid until the next step. Empty and idle(): nothing
  // left to do.
  std::span<const Event> step();
  // Nothing can be computed; there may be requests that are paused.
  bool idle() const { return scheduler_->idle(); }

  EngineStats stats() const;
  // Of all requests so far; cheap.
  uint64_t prompt_tokens_computed() const { return prompt_tokens_computed_; }
  void check_invariants() const;
  // Counts every reference of the cache anew and, with `repair`, mends what is wrong.
  kv::AuditReport audit(bool repair) { return cache_->audit(repair); }
  // By group, in the order of the arena.
  std::vector<std::vector<kv::BlockState>> block_states() const { return cache_->block_states(); }

 private:
  struct BeamGroup;

  // One answer between submit() and its end, under its scheduler slot.
  struct Running {
    SequenceId id{};
    bool used = false;
    uint32_t choice = 0;
    std::shared_ptr<const Request> request;  // of all its choices; its tokens are the scheduler's
    uint32_t prompt_tokens = 0;
    uint32_t prompt_reached = 0;  // prompt tokens that have been computed or matched once
    base::Sha256* digest = nullptr;
    BeamGroup* beams = nullptr;
    RequestStats stats;
  };

  // The beams of one request: beam i lies in slots[i].
  struct BeamGroup {
    BeamSearch search;
    std::vector<sched::Slot> slots;
    std::vector<sched::Slot> spare;  // claimed, without a beam now
    std::vector<sample::TokenLogprob> offers;
    RequestStats stats;   // of the request; from the first step on
    bool failed = false;  // the model gave no numbers
    // The step being taken: beam i's slot where it stays in its parent's; parents that have one.
    std::vector<std::optional<sched::Slot>> stays;
    std::vector<bool> has_child;
  };

  // A finished request's blocks, kept for a time.
  struct Retained {
    kv::Pin pin;
    uint64_t until_us = 0;
  };

  Engine(const EngineParts& parts, const sched::SchedulerLimits& limits);
  std::span<const sched::PlannedRows> plan();
  void build_batch(std::span<const sched::PlannedRows> plan);
  void finish_rows(const sched::PlannedRows& rows, model::SequenceRows& computed,
                   uint32_t first_logit_row);
  void score_rows(const sched::PlannedRows& rows, uint32_t first_logit_row, uint32_t scored_before);
  base::Status check_encoder(const Request& request) const;
  void encode_input(const kv::Lease& lease);
  void note_admission(sched::Slot slot);
  uint32_t start_choices(sched::Slot slot);
  void sample_row(sched::Slot slot, std::span<const float> logits);
  void retain(sched::Slot slot);
  base::Status check_beams(const Request& request) const;
  void start_beams(sched::Slot slot, const Request& request);
  void offer_row(sched::Slot slot, std::span<const float> logits);
  void advance_beams();
  void move_beams(BeamGroup& group, std::span<const BeamSearch::Step> steps);
  void finish_beams(BeamGroup& group, FinishReason reason);
  const RequestStats* close_beams(BeamGroup& group);
  static uint32_t sequences_of(const Request& request);
  void finish(sched::Slot slot, FinishReason reason);
  const RequestStats* close(sched::Slot slot);
  Running& running_of(sched::Slot slot) { return running_[sched::index_of(slot)]; }
  Event& emit(Event::Kind kind, const Running& running);

  EngineParts parts_;
  sched::SchedulerLimits limits_;
  uint32_t sequence_tokens_max_ = 0;
  uint32_t encoder_tokens_max_ = 0;
  std::unique_ptr<kv::Cache> cache_;
  std::unique_ptr<sched::Scheduler> scheduler_;  // after the cache: it holds leases
  std::vector<Retained> retained_;               // after the cache: the pins point to it
  sample::Sampler sampler_;
  base::AlignedBuffer logits_memory_;
  base::Span2D<float> logits_;         // [logit_rows_max, vocab]
  std::vector<Running> running_;       // [requests_max], by slot
  std::vector<base::Sha256> digests_;  // [requests_max], by slot
  std::vector<std::unique_ptr<BeamGroup>> beam_groups_;
  std::vector<std::unique_ptr<BeamGroup>> ended_beams_;  // the outbox points to their answers
  uint64_t next_id_ = 1;
  uint64_t pairs_computed_ = 0;
  uint64_t prompt_tokens_computed_ = 0;
  uint64_t steps_ = 0;

  // The step being made.
  std::vector<TokenId> batch_tokens_;
  std::vector<model::SequenceRows> batch_sequences_;
  std::vector<uint32_t> batch_logit_rows_;
  std::vector<Event> outbox_;
  std::vector<RequestStats> finished_stats_;  // [requests_max], by slot; the outbox points here
};

// The model that create() usually gets.
base::Result<std::unique_ptr<model::Model>> create_transformer(
    const model::TransformerParts& parts, const sched::SchedulerLimits& limits);

}  // namespace kvasir::engine
