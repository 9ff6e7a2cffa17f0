#include "engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/memory_plan.h"

namespace kvasir::engine {

base::Result<std::unique_ptr<Engine>> Engine::create(const EngineParts& parts,
                                                     const kv::CacheOptions& cache,
                                                     const sched::SchedulerLimits& limits) {
  std::unique_ptr<Engine> engine(new Engine(parts, limits));
  engine->sequence_tokens_max_ = cache.sequence_tokens_max;
  ASSIGN_OR_RETURN(engine->cache_, kv::Cache::create(cache));
  engine->scheduler_ = std::make_unique<sched::Scheduler>(limits, *engine->cache_);
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
  // Each logit row gives one event, and each sequence may end.
  outbox_.reserve(size_t{limits.logit_rows_max} + 2 * size_t{limits.sequences_max});
}

base::Status Engine::check(const Request& request) const {
  if (request.tokens.empty())
    return base::bad_input("the prompt is empty; give at least one token");
  const uint32_t vocab = parts_.model->vocab_size();
  for (const std::vector<TokenId>* ids : {&request.tokens, &request.end_tokens}) {
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
  if (cache_->admission(static_cast<uint32_t>(wanted)) == kv::Admission::kNever) {
    const kv::CacheStats stats = cache_->stats();
    return base::bad_input(fmt::format(
        "{} prompt tokens and {} to generate need more than the KV budget of {} blocks of {} "
        "tokens; raise --kv-memory or ask for fewer tokens",
        request.tokens.size(), request.max_tokens, stats.pool.blocks_capacity,
        cache_->layout().block_tokens()));
  }
  RETURN_IF_ERROR(check_conversation(request));
  if (request.top_logprobs > kTopLogprobsMax) {
    return base::bad_input(
        fmt::format("top_logprobs is {}; give at most {}", request.top_logprobs, kTopLogprobsMax));
  }
  return sample::check(request.sampling, vocab);
}

// Open conversations hold their blocks for good, so what does not fit beside them never will.
base::Status Engine::check_conversation(const Request& request) const {
  if (request.conversation.has_value()) {
    if (find_conversation(*request.conversation) != nullptr) return {};
    return base::bad_input("no such conversation; open one first");
  }
  uint64_t held = 0;
  for (const Conversation& conversation : conversations_) {
    held += conversation.lease.has_value() ? 1 : 0;
  }
  const uint64_t blocks_held = held * cache_->blocks_needed(conversation_tokens_max());
  const auto tokens = static_cast<uint32_t>(request.tokens.size() + request.max_tokens);
  const uint64_t capacity = cache_->stats().pool.blocks_capacity;
  if (blocks_held + cache_->blocks_needed(tokens) <= capacity) return {};
  return base::bad_input(fmt::format(
      "open conversations hold {} of the {} blocks of the KV cache; close one or raise --kv-memory",
      blocks_held, capacity));
}

bool Engine::can_submit(const Request& request) const {
  if (scheduler_->full()) return false;
  if (!request.conversation.has_value()) return true;
  const Conversation* conversation = find_conversation(*request.conversation);
  return conversation != nullptr && conversation->lease.has_value();
}

SequenceId Engine::submit(Request request) {
  CHECK(can_submit(request));
  const auto prompt_tokens = static_cast<uint32_t>(request.tokens.size());
  sched::SequenceSpec spec{.prompt_tokens = prompt_tokens,
                           .tokens_max = prompt_tokens + request.max_tokens,
                           .score_prompt = request.score_prompt};
  std::optional<kv::Lease> lease;
  if (request.conversation.has_value()) {
    Conversation& conversation = conversation_of(*request.conversation);
    spec.tokens_cached = truncate_to_common_prefix(conversation, request.tokens);
    lease = std::exchange(conversation.lease, std::nullopt);
  }
  const sched::Slot slot = scheduler_->add(spec, std::move(lease));
  Running& running = running_of(slot);
  CHECK(!running.used);
  request.tokens.reserve(size_t{prompt_tokens} + request.max_tokens);
  running = {.id = SequenceId{next_id_++},
             .used = true,
             .request = std::move(request),
             .prompt_tokens = prompt_tokens,
             .stats = {.prompt_tokens = prompt_tokens,
                       .tokens_cached = spec.tokens_cached,
                       .submitted_us = parts_.clock->now_us()}};
  if (running.request.digest_logits) running.digest = &digests_[sched::index_of(slot)];
  return running.id;
}

std::optional<ConversationId> Engine::open_conversation() {
  if (cache_->admission(conversation_tokens_max()) != kv::Admission::kNow) return std::nullopt;
  const ConversationId id{next_id_++};
  conversations_.push_back({.id = id, .lease = cache_->open(conversation_tokens_max())});
  return id;
}

void Engine::close_conversation(ConversationId id) {
  CHECK(conversation_of(id).lease.has_value());  // no request of it is running
  std::erase_if(conversations_, [&](const Conversation& c) { return c.id == id; });
}

uint32_t Engine::conversation_tokens_max() const {
  const uint64_t capacity =
      uint64_t{cache_->stats().pool.blocks_capacity} * cache_->layout().block_tokens();
  return static_cast<uint32_t>(std::min<uint64_t>(sequence_tokens_max_, capacity));
}

const Engine::Conversation* Engine::find_conversation(ConversationId id) const {
  const auto at = std::find_if(conversations_.begin(), conversations_.end(),
                               [&](const Conversation& c) { return c.id == id; });
  return at == conversations_.end() ? nullptr : &*at;
}

Engine::Conversation& Engine::conversation_of(ConversationId id) {
  const Conversation* conversation = find_conversation(id);
  CHECK(conversation != nullptr);
  return const_cast<Conversation&>(*conversation);
}

//   conversation: 0 ........ common ........ tokens.size()
//                 |- kept ---|- forgotten --|
// The prompt's last token is always computed: its logits are wanted.
uint32_t Engine::truncate_to_common_prefix(Conversation& conversation,
                                           std::span<const TokenId> prompt) {
  const auto differ = std::mismatch(conversation.tokens.begin(), conversation.tokens.end(),
                                    prompt.begin(), prompt.end() - 1);
  auto common = static_cast<uint32_t>(differ.first - conversation.tokens.begin());
  if (cache_->mode() == kv::CacheMode::kNone) common = 0;
  cache_->truncate(*conversation.lease, common);
  return common;
}

const RequestStats* Engine::cancel(SequenceId id) {
  const auto at = std::find_if(running_.begin(), running_.end(),
                               [&](const Running& r) { return r.used && r.id == id; });
  if (at == running_.end()) return nullptr;
  return close(sched::Slot{static_cast<uint32_t>(at - running_.begin())});
}

std::span<const Event> Engine::step() {
  outbox_.clear();
  const std::span<const sched::PlannedRows> plan = scheduler_->plan();
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
  return outbox_;
}

// Lays the planned rows out one after another.
void Engine::build_batch(std::span<const sched::PlannedRows> plan) {
  batch_tokens_.clear();
  batch_sequences_.clear();
  batch_logit_rows_.clear();
  for (const sched::PlannedRows& rows : plan) {
    Running& running = running_of(rows.slot);
    if (!running.stats.admitted_us) running.stats.admitted_us = parts_.clock->now_us();
    const auto first_row = static_cast<uint32_t>(batch_tokens_.size());
    const auto begin = running.request.tokens.begin() + rows.first_position;
    batch_tokens_.insert(batch_tokens_.end(), begin, begin + rows.tokens);
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

void Engine::finish_rows(const sched::PlannedRows& rows, model::SequenceRows& computed,
                         uint32_t first_logit_row) {
  Running& running = running_of(rows.slot);
  CHECK(computed.kv_rows_written % parts_.model->layers() == 0);
  const uint64_t pairs = computed.kv_rows_written / parts_.model->layers();
  running.stats.pairs_computed += pairs;
  pairs_computed_ += pairs;
  const uint32_t prompt_end = std::min(rows.first_position + rows.tokens, running.prompt_tokens);
  const uint32_t prompt_rows = prompt_end - std::min(prompt_end, rows.first_position);
  prompt_tokens_computed_ += prompt_rows;
  if (running.stats.tokens_generated == 0) running.stats.prompt_tokens_computed += prompt_rows;
  scheduler_->complete(rows);
  if (rows.scores) score_rows(rows, first_logit_row);
  if (!rows.samples) return;
  if (running.request.max_tokens == 0) {
    finish(rows.slot, FinishReason::kLength);
    return;
  }
  sample_row(rows, logits_.row(rows.scores ? first_logit_row + rows.tokens - 1 : first_logit_row));
}

void Engine::score_rows(const sched::PlannedRows& rows, uint32_t first_logit_row) {
  const Running& running = running_of(rows.slot);
  for (uint32_t i = 0; i < rows.tokens; ++i) {
    const std::span<const float> logits = logits_.row(first_logit_row + i);
    Event& event = emit(Event::Kind::kScore, running);
    event.position = rows.first_position + i;
    event.token = static_cast<TokenId>(parts_.kernels->arg_max(logits));
    event.logits = logits;
    const size_t next = event.position + 1;
    if (next < running.request.tokens.size()) {
      event.logprob = sampler_.logprob_of(logits, running.request.tokens[next]);
    }
    event.top_count = static_cast<uint32_t>(
        sampler_.top_logprobs(logits, std::span(event.top).first(running.request.top_logprobs)));
  }
}

void Engine::sample_row(const sched::PlannedRows& rows, std::span<const float> logits) {
  Running& running = running_of(rows.slot);
  Request& request = running.request;
  if (running.digest != nullptr) running.digest->update(std::as_bytes(logits));

  Event& event = emit(Event::Kind::kToken, running);
  event.position = static_cast<uint32_t>(request.tokens.size());
  event.top_count = static_cast<uint32_t>(
      sampler_.top_logprobs(logits, std::span(event.top).first(request.top_logprobs)));
  const std::optional<TokenId> token = sampler_.choose(
      logits, request.sampling, {.tokens = request.tokens, .prompt_tokens = running.prompt_tokens});
  if (!token.has_value()) {
    outbox_.pop_back();
    finish(rows.slot, FinishReason::kModelFailed);
    return;
  }
  event.token = *token;
  if (request.logprobs) event.logprob = sampler_.logprob_of(logits, *token);
  request.tokens.push_back(*token);
  ++running.stats.tokens_generated;
  if (running.stats.first_token_us == 0) running.stats.first_token_us = parts_.clock->now_us();

  const bool ends = std::find(request.end_tokens.begin(), request.end_tokens.end(), *token) !=
                    request.end_tokens.end();
  if (ends) {
    finish(rows.slot, FinishReason::kStop);
  } else if (running.stats.tokens_generated == request.max_tokens) {
    finish(rows.slot, FinishReason::kLength);
  } else {
    scheduler_->append_token(rows.slot);
  }
}

void Engine::finish(sched::Slot slot, FinishReason reason) {
  Event& event = emit(Event::Kind::kFinished, running_of(slot));
  event.finish = reason;
  event.stats = close(slot);
}

// Frees everything the request held; its statistics stay readable until the next step.
const RequestStats* Engine::close(sched::Slot slot) {
  Running& running = running_of(slot);
  CHECK(running.used);
  const uint32_t computed = scheduler_->tokens_computed(slot);
  std::optional<kv::Lease> lease = scheduler_->remove(slot);
  if (running.request.conversation.has_value()) {
    Conversation& conversation = conversation_of(*running.request.conversation);
    conversation.lease = std::move(lease);
    conversation.tokens = std::move(running.request.tokens);
    conversation.tokens.resize(computed);
  }
  RequestStats& stats = running.stats;
  stats.finished_us = parts_.clock->now_us();
  if (stats.first_token_us == 0) stats.first_token_us = stats.finished_us;
  if (running.digest != nullptr) stats.logits_digest = running.digest->finish();
  finished_stats_[sched::index_of(slot)] = stats;
  running = {};
  return &finished_stats_[sched::index_of(slot)];
}

Event& Engine::emit(Event::Kind kind, const Running& running) {
  CHECK(outbox_.size() < outbox_.capacity());
  Event& event = outbox_.emplace_back();
  event.kind = kind;
  event.sequence = running.id;
  return event;
}

base::Result<std::unique_ptr<model::Model>> create_transformer(
    const model::TransformerParts& parts, const sched::SchedulerLimits& limits) {
  return model::Transformer::create(parts, batch_limits(limits));
}

EngineStats Engine::stats() const {
  return {.cache = cache_->stats(),
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
  CHECK(used == scheduler_->running() + scheduler_->waiting());
}

}  // namespace kvasir::engine
