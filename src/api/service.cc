#include "api/service.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "base/fp_env.h"

namespace kvasir::api {
namespace {

constexpr uint64_t kPublishEveryUs = 50'000;
// Of what is free, one of several tenants may hold so many times as much.
constexpr uint32_t kTenantShareOfFree = 4;
// How late a deadline may be noticed while no step is made.
constexpr auto kIdleLook = std::chrono::milliseconds(20);

uint32_t answers_of(const GenerateRequest& request) {
  return std::max({request.choices, request.beams, 1U});
}

uint64_t tokens_of(const GenerateRequest& request) {
  return request.prompt.size() + uint64_t{request.max_tokens} * answers_of(request);
}

}  // namespace

std::unique_ptr<Service> Service::start(std::unique_ptr<Llm> llm, const ServiceLimits& limits) {
  std::unique_ptr<Service> service(new Service(std::move(llm), limits));
  service->thread_ = std::thread([raw = service.get()] { raw->run(); });
  return service;
}

Service::Service(std::unique_ptr<Llm> llm, const ServiceLimits& limits)
    : llm_(std::move(llm)),
      limits_(limits),
      held_(std::max<size_t>(llm_->plan().limits.tenant_weights.size(), 1)) {
  // Whoever is let in has a place in the engine.
  CHECK(limits.answers_max <= llm_->plan().limits.requests_max);
  publish();
}

Service::~Service() {
  stop();
}

void Service::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  has_commands_.notify_one();
  if (thread_.joinable()) thread_.join();
}

ServiceLimits Service::limits_of_one_tenant() const {
  if (limits_.tenants == 1) return limits_;
  constexpr uint32_t kParts = kTenantShareOfFree + 1;
  return {.answers_max = limits_.answers_max - limits_.answers_max / kParts,
          .tokens_max = limits_.tokens_max - limits_.tokens_max / kParts,
          .tenants = limits_.tenants};
}

base::Status Service::check(const GenerateRequest& request) const {
  RETURN_IF_ERROR(check_request(request));
  const auto& end_of_generation = llm_->tokenizer().vocab().end_of_generation;
  return llm_->check(engine_request(request, end_of_generation));
}

std::expected<RequestId, Refusal> Service::submit(ServiceRequest request,
                                                  std::shared_ptr<AnswerListener> listener) {
  const uint32_t answers = answers_of(request.generate);
  const uint64_t tokens = tokens_of(request.generate);
  const uint32_t tenant = request.generate.tenant;
  RequestId id{};
  {
    const std::lock_guard lock(mutex_);
    if (draining_.load()) return std::unexpected(Refusal::kDraining);
    if (!has_room(tenant, answers, tokens)) return std::unexpected(Refusal::kQueueFull);
    answers_ += answers;
    tokens_ += tokens;
    held_[tenant].answers += answers;
    held_[tenant].tokens += tokens;
    id = RequestId{next_id_++};
    commands_.emplace_back(Submit{id, std::move(request), std::move(listener), clock_.now_us()});
  }
  has_commands_.notify_one();
  return id;
}

// A request larger than the whole queue may run alone. Where there are several tenants, each leaves
// the others room: the fuller the queue, the less one of them may hold of it (a dynamic threshold:
// Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998).
// Requires: mutex_ is held.
bool Service::has_room(uint32_t tenant, uint32_t answers, uint64_t tokens) const {
  const uint32_t answers_free = limits_.answers_max - answers_;
  const uint64_t tokens_free = limits_.tokens_max - std::min(limits_.tokens_max, tokens_);
  if (answers > answers_free || (answers_ > 0 && tokens > tokens_free)) return false;
  const Held& held = held_[tenant];
  if (limits_.tenants == 1 || held.answers == 0) return true;
  return held.answers + answers <= kTenantShareOfFree * answers_free &&
         (held.tokens + tokens) / kTenantShareOfFree <= tokens_free;
}

void Service::post(Command command) {
  {
    const std::lock_guard lock(mutex_);
    commands_.push_back(std::move(command));
  }
  has_commands_.notify_one();
}

void Service::cancel(RequestId id) {
  post(Cancel{id});
}

void Service::pause(RequestId id) {
  post(Pause{id, true});
}

void Service::resume(RequestId id) {
  post(Pause{id, false});
}

void Service::with_engine(std::function<void(engine::Engine&)> call) {
  post(Call{std::move(call)});
}

bool Service::idle() const {
  const std::lock_guard lock(mutex_);
  return answers_ == 0;
}

ServiceStats Service::stats() const {
  const std::lock_guard lock(mutex_);
  ServiceStats stats = published_;
  stats.answers = answers_;
  stats.tokens = tokens_;
  const uint64_t began_us = step_began_us_.load();
  if (began_us > 0) stats.since_step_us = clock_.now_us() - began_us;
  return stats;
}

void Service::run() {
  const base::ScopedFpEnv fp_env;
  while (take_commands()) {
    if (llm_->engine().idle()) {
      audit();
      publish();
      wait_for_commands();
    } else {
      step();
    }
    end_overdue();
  }
  while (!open_.empty()) end_request(open_.begin()->second, EndReason::kCancelled);
}

// False: the service is to end.
bool Service::take_commands() {
  bool stopping = false;
  {
    const std::lock_guard lock(mutex_);
    stopping = stopping_;
    std::swap(commands_, obeyed_);
  }
  for (Command& command : obeyed_) {
    std::visit([&](auto& c) { obey(c); }, command);
  }
  obeyed_.clear();
  return !stopping;
}

void Service::wait_for_commands() {
  std::unique_lock lock(mutex_);
  const auto woken = [&] { return stopping_ || !commands_.empty(); };
  if (open_.empty()) {
    has_commands_.wait(lock, woken);
  } else {
    has_commands_.wait_for(lock, kIdleLook, woken);  // all are paused: deadlines go on
  }
}

void Service::obey(Submit& submit) {
  const GenerateRequest& request = submit.request.generate;
  Open open{.id = submit.id,
            .deadlines = submit.request.deadlines,
            .listener = std::move(submit.listener),
            .streams_open = answers_of(request),
            .prompt_tokens = request.prompt.size(),
            .tokens = tokens_of(request),
            .tenant = request.tenant,
            .submitted_us = submit.submitted_us};
  for (uint32_t choice = 0; choice < open.streams_open; ++choice) {
    open.streams.emplace_back(llm_->tokenizer(), request, choice);
  }
  engine::Request engine_form =
      engine_request(request, llm_->tokenizer().vocab().end_of_generation);
  CHECK(llm_->engine().can_submit(engine_form));  // answers_max
  open.sequence = llm_->engine().submit(std::move(engine_form));
  by_sequence_[open.sequence] = open.id;
  open_.emplace(open.id, std::move(open));
}

void Service::obey(const Cancel& cancel) {
  const auto at = open_.find(cancel.id);
  if (at != open_.end()) end_request(at->second, EndReason::kCancelled);
}

void Service::obey(const Pause& pause) {
  const auto at = open_.find(pause.id);
  if (at == open_.end()) return;
  if (pause.pause) {
    llm_->engine().pause(at->second.sequence);
  } else {
    llm_->engine().resume(at->second.sequence);
  }
}

void Service::obey(const Call& call) {
  call.call(llm_->engine());
}

void Service::step() {
  step_began_us_.store(clock_.now_us());
  const std::span<const engine::Event> events = llm_->engine().step();
  step_began_us_.store(0);
  audited_ = false;
  bool ended = false;
  for (const engine::Event& event : events) {
    handle(event);
    ended |= event.kind == engine::Event::Kind::kFinished;
  }
  if (ended || clock_.now_us() - published_us_ > kPublishEveryUs) publish();
  for (const RequestId id : touched_) {
    if (const auto at = open_.find(id); at != open_.end()) deliver(at->second);
  }
  touched_.clear();
}

void Service::handle(const engine::Event& event) {
  const auto known = by_sequence_.find(event.sequence);
  CHECK(known != by_sequence_.end());
  Open& open = open_.at(known->second);
  if (event.kind == engine::Event::Kind::kScore) {
    if (event.position + 1 >= open.prompt_tokens) return;
    open.listener->on_score(
        {.position = event.position + 1,
         .detail = {event.logprob, {event.top.begin(), event.top.begin() + event.top_count}}});
    return;
  }
  if (!std::exchange(open.touched, true)) touched_.push_back(open.id);
  if (event.kind == engine::Event::Kind::kFinished) {
    take_finish(open, event);
  } else if (!open.streams[event.choice].ended()) {
    take_token(open, event);
  }
}

void Service::take_token(Open& open, const engine::Event& event) {
  AnswerStream& stream = open.streams[event.choice];
  if (event.kind == engine::Event::Kind::kAnswer) {
    for (const TokenId token : event.answer) stream.push(token);
    tokens_generated_ += event.answer.size();
    return;
  }
  ++tokens_generated_;
  open.has_token = true;
  stream.push(event);
  if (!stream.stopped()) return;
  const engine::RequestStats* stats = llm_->engine().cancel(event.sequence, event.choice);
  // nullptr: the engine ended it with this very token; its statistics follow in the same outbox.
  if (stats != nullptr) end_stream(open, event.choice, EndReason::kStop, *stats);
}

// Where nothing is generated, the first choice ends for all.
void Service::take_finish(Open& open, const engine::Event& event) {
  const EndReason reason = end_reason(event.finish);
  const bool for_all = event.stats->tokens_generated == 0 && !open.has_token;
  for (uint32_t choice = 0; choice < open.streams.size(); ++choice) {
    if (open.streams[choice].ended() || (choice != event.choice && !for_all)) continue;
    end_stream(open, choice, reason, *event.stats);
  }
}

void Service::end_stream(Open& open, uint32_t choice, EndReason reason,
                         const engine::RequestStats& stats) {
  open.streams[choice].end(reason, stats);
  --open.streams_open;
}

// Ends whatever of it has not ended, and forgets it.
void Service::end_request(Open& open, EndReason reason) {
  const engine::RequestStats* stats = llm_->engine().cancel(open.sequence);
  const engine::RequestStats cost = stats == nullptr ? engine::RequestStats{} : *stats;
  for (uint32_t choice = 0; choice < open.streams.size(); ++choice) {
    if (!open.streams[choice].ended()) end_stream(open, choice, reason, cost);
  }
  publish();
  deliver(open);
}

// Hands its news to the listener; forgets the request with the last of them.
void Service::deliver(Open& open) {
  open.touched = false;
  if (open.streams_open == 0) {
    const std::lock_guard lock(mutex_);
    answers_ -= static_cast<uint32_t>(open.streams.size());
    tokens_ -= open.tokens;
    held_[open.tenant].answers -= static_cast<uint32_t>(open.streams.size());
    held_[open.tenant].tokens -= open.tokens;
  }
  for (AnswerStream& stream : open.streams) {
    if (stream.has_news()) open.listener->on_part(stream.take());
  }
  if (open.streams_open > 0) return;
  by_sequence_.erase(open.sequence);
  open_.erase(open.id);
}

void Service::end_overdue() {
  const uint64_t now_us = clock_.now_us();
  for (auto at = open_.begin(); at != open_.end();) {
    Open& open = (at++)->second;
    if (is_overdue(open, now_us)) end_request(open, EndReason::kDeadline);
  }
}

bool Service::is_overdue(const Open& open, uint64_t now_us) const {
  const auto passed = [&](const std::optional<uint64_t>& deadline_us) {
    return deadline_us && now_us - open.submitted_us > *deadline_us;
  };
  if (passed(open.deadlines.finished_us)) return true;
  if (open.has_token) return false;
  if (passed(open.deadlines.first_token_us)) return true;
  return passed(open.deadlines.begun_us) && !llm_->engine().has_begun(open.sequence);
}

// Nothing to do: time to count the cache's references anew, once after each busy time.
void Service::audit() {
  if (std::exchange(audited_, true)) return;
  ++audits_;
  if (!llm_->engine().audit(/*repair=*/true).ok()) ++audits_wrong_;
}

void Service::publish() {
  published_us_ = clock_.now_us();
  ServiceStats stats{.engine = llm_->engine().stats(),
                     .tokens_generated = tokens_generated_,
                     .audits = audits_,
                     .audits_wrong = audits_wrong_};
  const std::lock_guard lock(mutex_);
  published_ = std::move(stats);
}

}  // namespace kvasir::api
