#include "sim/soak_run.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kvasir::sim {
namespace {

// A promise may be waited for, patience may have to run out: then something is computed.
constexpr uint32_t kStepsIdleMax = 500;
// The longest prompt takes some 220 steps when a chunk is one token, and others come before it.
constexpr uint32_t kStepsSilentMax = 20'000;

const kernels::KernelTable& kernel_table() {
  return *kernels::find_kernels(kernels::Isa::kReference);
}

}  // namespace

// What else than the tokens a prefix stands for.
uint64_t SoakMemory::start(const engine::Request& request) {
  uint64_t hash = kHashSeed;
  for (const uint8_t byte : request.domain.tenant) hash = mix(hash, byte);
  for (const uint8_t byte : request.domain.adapter) hash = mix(hash, byte);
  for (const TokenId token : request.encoder_tokens) hash = chain(hash, token);
  return hash;
}

void SoakMemory::note(uint64_t prefix, SequenceId by) {
  const auto [at, inserted] = said_.try_emplace(prefix, Said{by});
  if (!inserted && at->second.first != by) at->second.others = true;
}

bool SoakMemory::said_by_others(uint64_t prefix, SequenceId than) const {
  const auto at = said_.find(prefix);
  return at != said_.end() && (at->second.others || at->second.first != than);
}

SoakRun::SoakRun(const SoakSetup& setup, uint32_t steps_per_check)
    : setup_(setup),
      steps_per_check_(steps_per_check),
      random_(setup.seed ^ kHashSeed),
      model_(setup_, clock_, random_),
      clients_(setup_, random_),
      oracle_(setup.vocab, setup.cache.groups),
      sampler_(setup.vocab, kernel_table()) {
  auto engine =
      engine::Engine::create({.model = &model_, .kernels = &kernel_table(), .clock = &clock_},
                             setup_.cache, setup_.limits);
  CHECK(engine.has_value());
  engine_ = *std::move(engine);
  for (uint32_t i = 0; i < setup_.clients; ++i) free_clients_.push_back(i);
}

std::optional<std::string> SoakRun::run(uint64_t tokens) {
  while (!failed()) {
    draining_ |= figures_.tokens >= tokens || random_.permille(setup_.drain_permille);
    if (!draining_) fill();
    if (engine_->idle()) {
      if (resume_all()) continue;
      check_idle();
      if (figures_.tokens >= tokens) break;
      continue;
    }
    step();
    if (random_.permille(setup_.cancel_permille)) cancel_one();
    if (random_.permille(setup_.pause_permille)) pause_one();
    if (random_.permille(setup_.pause_permille)) resume_all();
    if (figures_.steps % steps_per_check_ == 0) engine_->check_invariants();
  }
  add_up();
  return failure_;
}

void SoakRun::fail(std::string what) {
  if (!failure_) failure_ = fmt::format("{}; in {}", what, describe(setup_));
}

void SoakRun::expect(bool law, const char* what) {
  if (!law) fail(what);
}

void SoakRun::fill() {
  const auto wanted = static_cast<uint32_t>(free_clients_.size());
  for (uint32_t i = 0; i < wanted && random_.percent(60); ++i) {
    const uint32_t at = random_.below(static_cast<uint32_t>(free_clients_.size()));
    std::swap(free_clients_[at], free_clients_.back());
    submit(free_clients_.back());
  }
}

void SoakRun::submit(uint32_t client) {
  engine::Request request = clients_.next(client);
  request.choices = std::min(request.choices, setup_.limits.requests_max);
  while (!engine_->check(request).has_value()) {  // too long for this cache
    CHECK(request.tokens.size() > 1 || request.max_tokens > 0);
    request.tokens.resize((request.tokens.size() + 1) / 2);
    request.max_tokens /= 2;
  }
  if (!engine_->can_submit(request)) return;
  free_clients_.pop_back();
  Active active{.client = client, .request = request, .answers = {}, .scores = {}};
  active.id = engine_->submit(std::move(request));
  uint64_t prefix = SoakMemory::start(active.request);
  for (const TokenId token : active.request.tokens) {
    prefix = chain(prefix, token);
    memory_.note(prefix, active.id);
  }
  active.answers.resize(active.request.choices);
  for (Answer& answer : active.answers) answer.prefix = prefix;
  active_.push_back(std::move(active));
}

void SoakRun::step() {
  clock_.advance(1 + random_.below(50));
  const std::span<const engine::Event> events = engine_->step();
  ++figures_.steps;
  for (const engine::Event& event : events) {
    if (!failed()) take(event);
  }
  watch_progress(!events.empty());
}

void SoakRun::take(const engine::Event& event) {
  const size_t index = index_of_active(event.sequence);
  if (index == active_.size()) return fail("an event of a request that has ended");
  Active& active = active_[index];
  switch (event.kind) {
    case engine::Event::Kind::kScore:
      expect(event.position == active.scores.size(), "scores out of order");
      active.scores.push_back(event.token);
      return;
    case engine::Event::Kind::kToken: {
      Answer& answer = active.answers.at(event.choice);
      expect(!answer.ended, "a token of an answer that has ended");
      answer.tokens.push_back(event.token);
      answer.prefix = chain(answer.prefix, event.token);
      memory_.note(answer.prefix, active.id);
      expect(event.position + 1 == active.request.tokens.size() + answer.tokens.size(),
             "a token at the wrong position");
      return;
    }
    case engine::Event::Kind::kFinished:
      take_finished(active, event);
      if (active.ended == active.answers.size()) end_request(index);
      return;
    case engine::Event::Kind::kAnswer:
      return fail("a whole answer of a request without beams");
  }
}

void SoakRun::take_finished(Active& active, const engine::Event& event) {
  Answer& answer = active.answers.at(event.choice);
  expect(!answer.ended, "an answer that ends twice");
  answer.ended = true;
  answer.finished = true;
  answer.reason = event.finish;
  ++active.ended;
  if (active.request.max_tokens == 0) active.ended = static_cast<uint32_t>(active.answers.size());
  figures_.tokens += answer.tokens.size();
  if (event.choice == 0) figures_.tokens += active.request.tokens.size();
  expect(event.stats->tokens_generated == answer.tokens.size(), "a wrong count of tokens");
  if (event.choice == 0) check_hits(active, *event.stats);
}

// Every prompt token is a hit or a miss with a reason, and a hit is of what the domain has said.
void SoakRun::check_hits(const Active& active, const engine::RequestStats& stats) {
  uint64_t tokens = stats.match.tokens_cached;
  for (const uint32_t missed : stats.match.missed) tokens += missed;
  expect(tokens == active.request.tokens.size(), "hits and misses do not add up to the prompt");
  expect(stats.tokens_cached < active.request.tokens.size(), "more hits than a prompt can have");
  uint64_t prefix = SoakMemory::start(active.request);
  for (uint32_t i = 0; i < stats.tokens_cached; ++i) {
    prefix = chain(prefix, active.request.tokens[i]);
  }
  if (stats.tokens_cached > 0) {
    expect(memory_.said_by_others(prefix, active.id), "a hit of what its domain has never said");
  }
}

// The request as a whole, or one of its answers that has begun.
void SoakRun::cancel_one() {
  if (active_.empty()) return;
  const size_t index = random_.below(static_cast<uint32_t>(active_.size()));
  Active& active = active_[index];
  const uint32_t choice = random_.below(static_cast<uint32_t>(active.answers.size()));
  Answer& answer = active.answers[choice];
  ++figures_.cancels;
  if (random_.percent(50) || answer.ended || answer.tokens.empty()) {
    expect(engine_->cancel(active.id) != nullptr, "a running request can not be cancelled");
    return end_request(index);
  }
  expect(engine_->cancel(active.id, choice) != nullptr, "a running answer can not be cancelled");
  answer.ended = true;
  if (++active.ended == active.answers.size()) end_request(index);
}

void SoakRun::pause_one() {
  if (active_.empty()) return;
  Active& active = active_[random_.below(static_cast<uint32_t>(active_.size()))];
  engine_->pause(active.id);
  active.paused = true;
  ++figures_.pauses;
}

// False: nobody was paused.
bool SoakRun::resume_all() {
  bool resumed = false;
  for (Active& active : active_) {
    if (!std::exchange(active.paused, false)) continue;
    engine_->resume(active.id);
    resumed = true;
  }
  return resumed;
}

void SoakRun::end_request(size_t index) {
  Active& active = active_[index];
  ++figures_.requests;
  check_answers(active);
  const uint32_t choice = random_.below(static_cast<uint32_t>(active.answers.size()));
  if (random_.percent(90)) {
    clients_.answered(active.client, active.request.tokens, active.answers[choice].tokens);
  }
  free_clients_.push_back(active.client);
  std::swap(active_[index], active_.back());
  active_.pop_back();
}

void SoakRun::check_answers(const Active& active) {
  oracle_.restart(active.request.encoder_tokens);
  for (const TokenId token : active.request.tokens) oracle_.add(token);
  for (uint32_t i = 0; i < active.answers.size() && !failed(); ++i) check_answer(active, i);
  if (active.request.score_prompt && !failed()) check_scores(active);
}

// Token by token as the engine must have chosen it; an answer that ended has all of them.
void SoakRun::check_answer(const Active& active, uint32_t choice) {
  const engine::Request& request = active.request;
  const Answer& answer = active.answers[choice];
  const auto prompt_tokens = static_cast<uint32_t>(request.tokens.size());
  std::vector<TokenId> text = request.tokens;
  oracle_.truncate(prompt_tokens);
  bool stopped = false;
  for (const TokenId token : answer.tokens) {
    const std::optional<TokenId> expected =
        sampler_.choose(oracle_.logits(), request.sampling,
                        {.tokens = text,
                         .prompt_tokens = prompt_tokens,
                         .choice = choice,
                         .banned = text.size() - prompt_tokens < request.min_tokens
                                       ? std::span<const TokenId>(request.end_tokens)
                                       : std::span<const TokenId>()});
    if (expected != token) {
      return fail(fmt::format("request {}, choice {}: token {} at position {} should be {}",
                              static_cast<uint64_t>(active.id), choice, token, text.size(),
                              expected.value_or(-1)));
    }
    expect(!stopped, "an answer that goes on after its end");
    stopped = std::ranges::find(request.end_tokens, token) != request.end_tokens.end();
    text.push_back(token);
    oracle_.add(token);
  }
  if (!answer.finished) return;
  const auto reason = stopped ? engine::FinishReason::kStop : engine::FinishReason::kLength;
  expect(answer.reason == reason, "an answer with a wrong reason to end");
  expect(stopped || answer.tokens.size() == request.max_tokens, "an answer of a wrong length");
}

void SoakRun::check_scores(const Active& active) {
  const std::vector<TokenId>& prompt = active.request.tokens;
  const bool whole = active.answers[0].finished || !active.answers[0].tokens.empty();
  if (whole) expect(active.scores.size() == prompt.size(), "a prompt that was scored in part");
  oracle_.truncate(0);
  for (size_t i = 0; i < active.scores.size() && !failed(); ++i) {
    oracle_.add(prompt[i]);
    expect(kernel_table().arg_max(oracle_.logits()) == static_cast<size_t>(active.scores[i]),
           "a prompt token with a wrong score");
  }
}

// Nothing runs: nothing is held, and everything can be forgotten.
void SoakRun::check_idle() {
  expect(active_.empty(), "an idle engine with requests that have not ended");
  for (const kv::GroupStats& group : engine_->stats().cache.groups) {
    expect(group.blocks.referenced() == 0, "an idle engine that holds blocks");
  }
  if (!draining_) return;
  draining_ = false;
  engine_->check_invariants();
  if (random_.percent(50)) return;
  expect(engine_->reset_cache().done, "an idle cache that refuses to be reset");
  memory_.clear();
  ++figures_.resets;
  engine_->check_invariants();
  for (const kv::GroupStats& group : engine_->stats().cache.groups) {
    expect(group.blocks.of(kv::BlockState::kCached) == 0, "a reset that left blocks");
  }
}

void SoakRun::watch_progress(bool events) {
  const uint64_t computed = model_.tokens_computed();
  steps_idle_ = computed > computed_before_ ? 0 : steps_idle_ + 1;
  steps_silent_ = events ? 0 : steps_silent_ + 1;
  computed_before_ = computed;
  if (steps_idle_ > kStepsIdleMax) fail("requests wait and nothing is computed: a deadlock");
  if (steps_silent_ > kStepsSilentMax) fail("tokens are computed and nothing comes of it");
}

void SoakRun::add_up() {
  const engine::EngineStats stats = engine_->stats();
  figures_.setups = 1;
  figures_.tokens_computed = model_.tokens_computed();
  figures_.tokens_hit = stats.cache.tokens_hit;
  figures_.preemptions = stats.scheduler.preemptions;
  for (const kv::GroupStats& group : stats.cache.groups) figures_.evictions += group.evicted;
  figures_.copies = stats.cache.blocks_copied;
  figures_.dedups = stats.cache.blocks_deduplicated;
  figures_.promises = stats.cache.promises_kept;
  figures_.promise_waits = stats.scheduler.promise_waits;
  figures_.relocations = stats.cache.blocks_relocated;
}

size_t SoakRun::index_of_active(SequenceId id) const {
  size_t index = 0;
  while (index < active_.size() && active_[index].id != id) ++index;
  return index;
}

}  // namespace kvasir::sim
