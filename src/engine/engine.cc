#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/memory_plan.h"

namespace kvasir::engine {
namespace {

constexpr size_t kRetainedMax = 256;

}  // namespace

base::Result<std::unique_ptr<Engine>> Engine::create(const EngineParts& parts,
                                                     const kv::CacheOptions& cache,
                                                     const sched::SchedulerLimits& limits) {
  std::unique_ptr<Engine> engine(new Engine(parts, limits));
  engine->sequence_tokens_max_ = cache.sequence_tokens_max;
  engine->encoder_tokens_max_ = cache.encoder_tokens_max;
  kv::CacheOptions options = cache;
  options.step_tokens_max = limits.prefill_chunk;
  ASSIGN_OR_RETURN(engine->cache_, kv::Cache::create(options));
  engine->scheduler_ = std::make_unique<sched::Scheduler>(limits, *engine->cache_, *parts.clock);
  const size_t vocab = parts.model->vocab_size();
  const size_t rows = limits.logit_rows_max;
  ASSIGN_OR_RETURN(engine->logits_memory_,
                   base::AlignedBuffer::create(rows * vocab * sizeof(float)));
  engine->logits_ = {engine->logits_memory_.as<float>(0, rows * vocab).data(), rows, vocab};
  return engine;
}

Engine::Engine(const EngineParts& parts, const sched::SchedulerLimits& limits)
    : parts_(parts),
      limits_(limits),
      sampler_(parts.model->vocab_size(), *parts.kernels),
      running_(limits.requests_max),
      digests_(limits.requests_max),
      finished_stats_(limits.requests_max) {
  batch_tokens_.reserve(limits.rows_max());
  batch_sequences_.reserve(limits.sequences_max);
  batch_logit_rows_.reserve(limits.logit_rows_max);
  // Each logit row gives one event and one for each fork, and each sequence may end.
  outbox_.reserve(size_t{limits.logit_rows_max} + 2 * size_t{limits.requests_max});
  retained_.reserve(kRetainedMax);
}

base::Status Engine::check(const Request& request) const {
  if (request.tokens.empty())
    return base::bad_input("the prompt is empty; give at least one token");
  const uint32_t vocab = parts_.model->vocab_size();
  for (const std::vector<TokenId>* ids :
       {&request.tokens, &request.encoder_tokens, &request.end_tokens}) {
    for (const TokenId id : *ids) {
      if (id >= 0 && static_cast<uint32_t>(id) < vocab) continue;
      return base::bad_input(
          fmt::format("token id {} is outside the vocabulary; ids are 0 to {}", id, vocab - 1));
    }
  }
  const uint64_t wanted = request.tokens.size() + uint64_t{request.max_tokens};
  if (wanted > sequence_tokens_max_) {
    return base::bad_input(fmt::format(
        "{} prompt tokens and {} to generate exceed the context of {}; shorten the prompt or ask "
        "for fewer tokens",
        request.tokens.size(), request.max_tokens, sequence_tokens_max_));
  }
  RETURN_IF_ERROR(check_encoder(request));
  const auto encoder_tokens = static_cast<uint32_t>(request.encoder_tokens.size());
  if (!cache_->can_ever_fit(static_cast<uint32_t>(wanted), encoder_tokens)) {
    return base::bad_input(fmt::format(
        "{} prompt tokens and {} to generate need more than the KV budget of {} blocks of {} "
        "tokens; raise --kv-memory or ask for fewer tokens",
        request.tokens.size(), request.max_tokens, cache_->blocks_capacity(),
        cache_->layout().block_tokens()));
  }
  if (request.choices == 0 || request.choices > kChoicesMax ||
      request.choices > limits_.requests_max) {
    return base::bad_input(fmt::format("{} choices; ask for 1 to {}", request.choices,
                                       std::min(kChoicesMax, limits_.requests_max)));
  }
  if (request.top_logprobs > kTopLogprobsMax) {
    return base::bad_input(
        fmt::format("top_logprobs is {}; give at most {}", request.top_logprobs, kTopLogprobsMax));
  }
  if (request.tenant >= std::max<size_t>(limits_.tenant_weights.size(), 1)) {
    return base::bad_input(fmt::format("tenant {} is not known", request.tenant));
  }
  RETURN_IF_ERROR(check_beams(request));
  return sample::check(request.sampling, vocab);
}

base::Status Engine::check_encoder(const Request& request) const {
  if (request.encoder_tokens.empty()) return {};
  if (!parts_.model->has_encoder()) {
    return base::bad_input("this model has no encoder; leave its input out");
  }
  if (request.encoder_tokens.size() <= encoder_tokens_max_) return {};
  return base::bad_input(fmt::format("{} tokens for the encoder; give at most {}",
                                     request.encoder_tokens.size(), encoder_tokens_max_));
}

bool Engine::can_submit(const Request& request) const {
  return scheduler_->has_room(sequences_of(request));
}

SequenceId Engine::submit(Request request) {
  CHECK(can_submit(request));
  const auto prompt_tokens = static_cast<uint32_t>(request.tokens.size());
  const auto owned = std::make_shared<Request>(std::move(request));
  const sched::Slot slot = scheduler_->add({.tokens = std::move(owned->tokens),
                                            .tokens_max = prompt_tokens + owned->max_tokens,
                                            .encoder = owned->encoder_tokens,
                                            .domain = owned->domain,
                                            .retention = owned->retention,
                                            .priority = owned->priority,
                                            .tenant = owned->tenant,
                                            .reads_cache = owned->reads_cache,
                                            .score_prompt = owned->score_prompt,
                                            .forks = sequences_of(*owned) - 1});
  Running& running = running_of(slot);
  CHECK(!running.used);
  running = {.id = SequenceId{next_id_++},
             .used = true,
             .request = owned,
             .prompt_tokens = prompt_tokens,
             .stats = {.prompt_tokens = prompt_tokens, .submitted_us = parts_.clock->now_us()}};
  if (owned->digest_logits) running.digest = &digests_[sched::index_of(slot)];
  if (running.request->beams > 0) start_beams(slot, *running.request);
  return running.id;
}

uint32_t Engine::sequence_tokens_limit() const {
  const uint64_t capacity = uint64_t{cache_->blocks_capacity()} * cache_->layout().block_tokens();
  return static_cast<uint32_t>(std::min<uint64_t>(sequence_tokens_max_, capacity));
}

const RequestStats* Engine::cancel(SequenceId id) {
  const RequestStats* first = nullptr;
  for (uint32_t i = 0; i < running_.size(); ++i) {
    if (!running_[i].used || running_[i].id != id) continue;
    BeamGroup* beams = running_[i].beams;
    if (beams != nullptr) return close_beams(*beams);
    const RequestStats* stats = close(sched::Slot{i});
    if (first == nullptr) first = stats;
  }
  return first;
}

const RequestStats* Engine::cancel(SequenceId id, uint32_t choice) {
  const auto at = std::ranges::find_if(running_, [&](const Running& running) {
    return running.used && running.id == id &&
           (running.choice == choice || running.beams != nullptr);
  });
  if (at == running_.end()) return nullptr;
  if (at->beams != nullptr) return close_beams(*at->beams);  // beams end together
  return close(sched::Slot{static_cast<uint32_t>(at - running_.begin())});
}

bool Engine::has_begun(SequenceId id) const {
  return std::ranges::none_of(running_, [&](const Running& running) {
    return running.used && running.id == id && !running.stats.admitted_us;
  });
}

void Engine::pause(SequenceId id) {
  for (uint32_t i = 0; i < running_.size(); ++i) {
    if (!running_[i].used || running_[i].id != id || running_[i].beams != nullptr) continue;
    scheduler_->pause(sched::Slot{i});
  }
}

void Engine::resume(SequenceId id) {
  for (uint32_t i = 0; i < running_.size(); ++i) {
    if (running_[i].used && running_[i].id == id) scheduler_->resume(sched::Slot{i});
  }
}

kv::ResetResult Engine::reset_cache() {
  if (scheduler_->idle()) retained_.clear();
  return cache_->reset();
}

// Where nothing can run because blocks are retained for later, those kept longest go first.
std::span<const sched::PlannedRows> Engine::plan() {
  const uint64_t now_us = parts_.clock->now_us();
  std::erase_if(retained_, [&](const Retained& r) { return r.until_us <= now_us; });
  std::span<const sched::PlannedRows> plan = scheduler_->plan();
  while (plan.empty() && !scheduler_->idle() && !retained_.empty()) {
    retained_.erase(retained_.begin());
    plan = scheduler_->plan();
  }
  return plan;
}

std::span<const Event> Engine::step() {
  outbox_.clear();
  ended_beams_.clear();
  const std::span<const sched::PlannedRows> plan = this->plan();
  if (plan.empty()) return {};
  build_batch(plan);
  parts_.model->forward(
      {.tokens = batch_tokens_, .sequences = batch_sequences_, .logit_rows = batch_logit_rows_},
      logits_.rows_from(0, batch_logit_rows_.size()));
  ++steps_;
  uint32_t logit_row = 0;
  for (size_t i = 0; i < plan.size(); ++i) {
    const uint32_t logit_rows = plan[i].scores ? plan[i].tokens : plan[i].samples ? 1 : 0;
    finish_rows(plan[i], batch_sequences_[i], logit_row);
    logit_row += logit_rows;
  }
  advance_beams();
  return outbox_;
}

// Lays the planned rows out one after another.
void Engine::build_batch(std::span<const sched::PlannedRows> plan) {
  batch_tokens_.clear();
  batch_sequences_.clear();
  batch_logit_rows_.clear();
  for (const sched::PlannedRows& rows : plan) {
    Running& running = running_of(rows.slot);
    if (!running.stats.admitted_us) note_admission(rows.slot);
    encode_input(scheduler_->lease(rows.slot));
    const auto first_row = static_cast<uint32_t>(batch_tokens_.size());
    const auto tokens = scheduler_->tokens(rows.slot).subspan(rows.first_position, rows.tokens);
    batch_tokens_.insert(batch_tokens_.end(), tokens.begin(), tokens.end());
    batch_sequences_.push_back({.view = cache_->view(scheduler_->lease(rows.slot)),
                                .first_row = first_row,
                                .tokens = rows.tokens,
                                .first_position = rows.first_position});
    if (rows.scores) {
      for (uint32_t i = 0; i < rows.tokens; ++i) batch_logit_rows_.push_back(first_row + i);
    } else if (rows.samples) {
      batch_logit_rows_.push_back(first_row + rows.tokens - 1);
    }
  }
  CHECK(batch_tokens_.size() <= limits_.rows_max());
  CHECK(batch_logit_rows_.size() <= limits_.logit_rows_max);
}

// Once for each input that is not in memory, before the first row that reads it.
void Engine::encode_input(const kv::Lease& lease) {
  if (!cache_->needs_encoding(lease)) return;
  parts_.model->encode({.tokens = cache_->encoder_input(lease), .view = cache_->view(lease)});
  cache_->encoded(lease);
}

void Engine::note_admission(sched::Slot slot) {
  Running& running = running_of(slot);
  RequestStats& stats = running.stats;
  stats.admitted_us = parts_.clock->now_us();
  stats.match = *scheduler_->stats_of(slot).match;
  stats.tokens_cached = stats.match.tokens_cached;
  running.prompt_reached = stats.tokens_cached;
}

void Engine::finish_rows(const sched::PlannedRows& rows, model::SequenceRows& computed,
                         uint32_t first_logit_row) {
  Running& running = running_of(rows.slot);
  CHECK(computed.kv_rows_written % parts_.model->layers() == 0);
  const uint64_t pairs = computed.kv_rows_written / parts_.model->layers();
  running.stats.pairs_computed += pairs;
  pairs_computed_ += pairs;
  const uint32_t prompt_end = std::min(rows.first_position + rows.tokens, running.prompt_tokens);
  const uint32_t reached_before = running.prompt_reached;
  const uint32_t prompt_rows =
      prompt_end - std::min(prompt_end, std::max(reached_before, rows.first_position));
  running.prompt_reached = std::max(reached_before, prompt_end);
  running.stats.prompt_tokens_computed += prompt_rows;
  prompt_tokens_computed_ += prompt_rows;
  scheduler_->complete(rows);
  if (rows.scores) score_rows(rows, first_logit_row, reached_before);
  if (!rows.samples) return;
  if (running.request->max_tokens == 0) {
    finish(rows.slot, FinishReason::kLength);
    return;
  }
  const std::span<const float> logits =
      logits_.row(rows.scores ? first_logit_row + rows.tokens - 1 : first_logit_row);
  if (running.beams != nullptr) {
    offer_row(rows.slot, logits);
    return;
  }
  uint32_t undrawn = start_choices(rows.slot);
  const SequenceId id = running.id;
  sample_row(rows.slot, logits);
  for (uint32_t i = 0; undrawn > 0 && i < running_.size(); ++i) {
    if (!running_[i].used || running_[i].id != id || running_[i].choice == 0) continue;
    sample_row(sched::Slot{i}, logits);
    --undrawn;
  }
}

// The prompt is computed: every further choice begins as a fork of the first and draws its own
// first token from the same logits. Returns how many there are.
uint32_t Engine::start_choices(sched::Slot slot) {
  uint32_t started = 0;
  while (!scheduler_->forks(slot).empty()) {
    const sched::Slot fork = scheduler_->forks(slot).back();
    scheduler_->fork(slot, fork);
    const Running& first = running_of(slot);
    Running& running = running_of(fork);
    CHECK(!running.used);
    running = first;
    running.choice = ++started;
    running.stats.pairs_computed = 0;
    running.stats.prompt_tokens_computed = 0;
    if (first.digest != nullptr) running.digest = &digests_[sched::index_of(fork)];
  }
  return started;
}

// Each row once: a preempted prompt is computed again from its first token.
void Engine::score_rows(const sched::PlannedRows& rows, uint32_t first_logit_row,
                        uint32_t scored_before) {
  const Running& running = running_of(rows.slot);
  const uint32_t first = scored_before - std::min(scored_before, rows.first_position);
  for (uint32_t i = first; i < rows.tokens; ++i) {
    const std::span<const float> logits = logits_.row(first_logit_row + i);
    Event& event = emit(Event::Kind::kScore, running);
    event.position = rows.first_position + i;
    event.token = static_cast<TokenId>(parts_.kernels->arg_max(logits));
    event.logits = logits;
    const size_t next = event.position + 1;
    const std::span<const TokenId> tokens = scheduler_->tokens(rows.slot);
    if (next < tokens.size()) event.logprob = sampler_.logprob_of(logits, tokens[next]);
    event.top_count = static_cast<uint32_t>(
        sampler_.top_logprobs(logits, std::span(event.top).first(running.request->top_logprobs)));
  }
}

void Engine::sample_row(sched::Slot slot, std::span<const float> logits) {
  Running& running = running_of(slot);
  const Request& request = *running.request;
  const std::span<const TokenId> tokens = scheduler_->tokens(slot);
  if (running.digest != nullptr) running.digest->update(std::as_bytes(logits));

  Event& event = emit(Event::Kind::kToken, running);
  event.position = static_cast<uint32_t>(tokens.size());
  event.top_count = static_cast<uint32_t>(
      sampler_.top_logprobs(logits, std::span(event.top).first(request.top_logprobs)));
  const std::optional<TokenId> token =
      sampler_.choose(logits, request.sampling,
                      {.tokens = tokens,
                       .prompt_tokens = running.prompt_tokens,
                       .choice = running.choice,
                       .banned = running.stats.tokens_generated < request.min_tokens
                                     ? std::span<const TokenId>(request.end_tokens)
                                     : std::span<const TokenId>()});
  if (!token.has_value()) {
    outbox_.pop_back();
    finish(slot, FinishReason::kModelFailed);
    return;
  }
  event.token = *token;
  if (request.logprobs) event.logprob = sampler_.logprob_of(logits, *token);
  ++running.stats.tokens_generated;
  if (running.stats.first_token_us == 0) running.stats.first_token_us = parts_.clock->now_us();

  const bool ends = std::find(request.end_tokens.begin(), request.end_tokens.end(), *token) !=
                    request.end_tokens.end();
  if (ends) {
    finish(slot, FinishReason::kStop);
  } else if (running.stats.tokens_generated == request.max_tokens) {
    finish(slot, FinishReason::kLength);
  } else {
    scheduler_->append_token(slot, *token);
  }
}

void Engine::finish(sched::Slot slot, FinishReason reason) {
  Event& event = emit(Event::Kind::kFinished, running_of(slot));
  event.finish = reason;
  event.stats = close(slot);
}

// Frees everything the answer held; its statistics stay readable until the next step.
const RequestStats* Engine::close(sched::Slot slot) {
  Running& running = running_of(slot);
  CHECK(running.used);
  retain(slot);
  RequestStats& stats = running.stats;
  stats.preemptions = scheduler_->stats_of(slot).preemptions;
  stats.promise_wait_us = scheduler_->stats_of(slot).promise_wait_us;
  scheduler_->remove(slot);
  stats.finished_us = parts_.clock->now_us();
  if (stats.first_token_us == 0) stats.first_token_us = stats.finished_us;
  if (running.digest != nullptr) stats.logits_digest = running.digest->finish();
  finished_stats_[sched::index_of(slot)] = stats;
  running = {};
  return &finished_stats_[sched::index_of(slot)];
}

void Engine::retain(sched::Slot slot) {
  const uint64_t retain_us = running_of(slot).request->retain_us;
  if (retain_us == 0 || !scheduler_->is_running(slot)) return;
  if (retained_.size() == kRetainedMax) retained_.erase(retained_.begin());
  if (std::optional<kv::Pin> pin = cache_->pin(scheduler_->lease(slot))) {
    retained_.push_back({*std::move(pin), parts_.clock->now_us() + retain_us});
  }
}

Event& Engine::emit(Event::Kind kind, const Running& running) {
  CHECK(outbox_.size() < outbox_.capacity());
  Event& event = outbox_.emplace_back();
  event.kind = kind;
  event.sequence = running.id;
  event.choice = running.choice;
  return event;
}

base::Result<std::unique_ptr<model::Model>> create_transformer(
    const model::TransformerParts& parts, const sched::SchedulerLimits& limits) {
  return model::Transformer::create(parts, batch_limits(limits));
}

EngineStats Engine::stats() const {
  return {.cache = cache_->stats(),
          .scheduler = scheduler_->stats(),
          .running = scheduler_->running(),
          .waiting = scheduler_->waiting(),
          .pairs_computed = pairs_computed_,
          .prompt_tokens_computed = prompt_tokens_computed_,
          .steps = steps_};
}

void Engine::check_invariants() const {
  cache_->check_invariants();
  scheduler_->check_invariants();
  const auto used = static_cast<uint32_t>(
      std::count_if(running_.begin(), running_.end(), [](const Running& r) { return r.used; }));
  uint32_t retired = 0;  // beams without a continuation, or computed and without blocks
  uint32_t paused = 0;
  for (uint32_t i = 0; i < running_.size(); ++i) {
    if (running_[i].used && scheduler_->is_paused(sched::Slot{i})) ++paused;
  }
  for (const auto& group : beam_groups_) {
    for (const sched::Slot slot : group->spare) {
      retired += running_[sched::index_of(slot)].used ? 1 : 0;
    }
    for (const sched::Slot slot : group->slots) retired += scheduler_->is_parked(slot) ? 1 : 0;
  }
  CHECK(used == scheduler_->running() + scheduler_->waiting() + retired + paused);
}

}  // namespace kvasir::engine
