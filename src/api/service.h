// Many callers, one engine. A thread of its own steps the engine; requests come in from any thread
// through a mailbox, and what becomes of each goes to its listener.
//
//   callers --submit, cancel, pause--> mailbox --> engine thread: step --> listeners
//
// Thread: every public function may be called from any thread. Listeners are called on the engine
// thread. Allocates: freely, but not while the engine makes a step.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <variant>
#include <vector>

#include "api/answer_stream.h"
#include "api/llm.h"

namespace kvasir::api {

// Number of a request in a service; never used twice.
enum class RequestId : uint64_t {};

// The prompt's token at `position` as the model rated it.
struct PromptScore {
  uint32_t position = 0;  // from 1: nothing stands before the first token
  TokenDetail detail;
};

// Hears of one request. Must not block: the engine waits.
class AnswerListener {
 public:
  virtual ~AnswerListener() = default;
  virtual void on_part(AnswerPart part) = 0;
  // With GenerateRequest::score_prompt, in order, before the first part.
  virtual void on_score(const PromptScore&) {}
};

// Measured from submit(); nullopt: for ever. A request that misses one ends with kDeadline.
struct Deadlines {
  std::optional<uint64_t> begun_us;  // its first rows are computed
  std::optional<uint64_t> first_token_us;
  std::optional<uint64_t> finished_us;
};

struct ServiceRequest {
  GenerateRequest generate;
  Deadlines deadlines;
};

// Of all that is in the service, waiting or running.
struct ServiceLimits {
  uint32_t answers_max = 0;          // a request has one for each choice
  uint64_t tokens_max = UINT64_MAX;  // prompts and max_tokens of every answer
  uint32_t tenants = 1;              // that share them
};

enum class Refusal : uint8_t { kQueueFull, kDraining };

struct ServiceStats {
  engine::EngineStats engine;
  uint32_t answers = 0;  // in the service, waiting and running
  uint64_t tokens = 0;   // see ServiceLimits::tokens_max
  uint64_t tokens_generated = 0;
  uint64_t audits = 0;         // of the cache's books, whenever there was nothing to do
  uint64_t audits_wrong = 0;   // found and mended something: a bug
  uint64_t since_step_us = 0;  // there is work, and no step has ended for so long
};

class Service {
 public:
  // Takes the model over and starts its thread.
  static std::unique_ptr<Service> start(std::unique_ptr<Llm> llm, const ServiceLimits& limits);
  ~Service();  // cancels what is left
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // Ends the thread; answers under way end with kCancelled. Nothing that is asked for afterwards
  // happens.
  void stop();

  // Tokenizer, template, configuration, options and plan: what never changes.
  const Llm& llm() const { return *llm_; }
  const ServiceLimits& limits() const { return limits_; }
  // Of these, what one tenant can hold while the others hold nothing, in several requests.
  ServiceLimits limits_of_one_tenant() const;

  const base::Clock& clock() const { return clock_; }

  // Error: the request can never run; says why.
  base::Status check(const GenerateRequest& request) const;
  // Takes a request in, or says why not now. Requires: check() passed.
  std::expected<RequestId, Refusal> submit(ServiceRequest request,
                                           std::shared_ptr<AnswerListener> listener);
  // The request's answers end with kCancelled within a step. No effect on one that has ended.
  void cancel(RequestId id);
  // Paused, a request gives its blocks back to the cache and is computed no further.
  void pause(RequestId id);
  void resume(RequestId id);
  // Runs between two steps, on the engine thread.
  void with_engine(std::function<void(engine::Engine&)> call);

  ServiceStats stats() const;  // exact when an answer has ended; at most 50 ms old otherwise

  // Takes no more requests; those there are finish.
  void drain() { draining_.store(true); }
  bool draining() const { return draining_.load(); }
  bool idle() const;  // no request is in the service

 private:
  // A request in the service.
  struct Open {
    RequestId id{};
    SequenceId sequence{};
    Deadlines deadlines;
    std::shared_ptr<AnswerListener> listener;
    std::vector<AnswerStream> streams;  // by choice
    uint32_t streams_open = 0;
    size_t prompt_tokens = 0;
    uint64_t tokens = 0;
    uint32_t tenant = 0;
    uint64_t submitted_us = 0;
    bool has_token = false;
    bool touched = false;  // has news of this step
  };
  struct Submit {
    RequestId id{};
    ServiceRequest request;
    std::shared_ptr<AnswerListener> listener;
    uint64_t submitted_us = 0;
  };
  struct Cancel {
    RequestId id{};
  };
  struct Pause {
    RequestId id{};
    bool pause = false;
  };
  struct Call {
    std::function<void(engine::Engine&)> call;
  };
  using Command = std::variant<Submit, Cancel, Pause, Call>;
  // What a tenant has in the service; see ServiceLimits.
  struct Held {
    uint32_t answers = 0;
    uint64_t tokens = 0;
  };

  Service(std::unique_ptr<Llm> llm, const ServiceLimits& limits);
  bool has_room(uint32_t tenant, uint32_t answers, uint64_t tokens) const;
  void post(Command command);
  void run();
  bool take_commands();
  void wait_for_commands();
  void obey(Submit& submit);
  void obey(const Cancel& cancel);
  void obey(const Pause& pause);
  void obey(const Call& call);
  void step();
  void handle(const engine::Event& event);
  void take_token(Open& open, const engine::Event& event);
  void take_finish(Open& open, const engine::Event& event);
  void end_stream(Open& open, uint32_t choice, EndReason reason, const engine::RequestStats& stats);
  void end_request(Open& open, EndReason reason);
  void deliver(Open& open);
  void end_overdue();
  bool is_overdue(const Open& open, uint64_t now_us) const;
  void audit();
  void publish();

  std::unique_ptr<Llm> llm_;
  ServiceLimits limits_;
  base::SteadyClock clock_;

  // The mailbox and what callers see.
  mutable std::mutex mutex_;
  std::condition_variable has_commands_;
  std::vector<Command> commands_;
  uint64_t next_id_ = 1;
  uint32_t answers_ = 0;
  std::vector<Held> held_;  // by tenant
  uint64_t tokens_ = 0;
  bool stopping_ = false;
  ServiceStats published_;
  std::atomic<bool> draining_{false};
  std::atomic<uint64_t> step_began_us_{0};  // 0: none is being made

  // The engine thread's.
  std::map<RequestId, Open> open_;
  std::map<SequenceId, RequestId> by_sequence_;
  std::vector<RequestId> touched_;
  std::vector<Command> obeyed_;
  uint64_t published_us_ = 0;
  uint64_t tokens_generated_ = 0;
  uint64_t audits_ = 0;
  uint64_t audits_wrong_ = 0;
  bool audited_ = true;  // since the last step

  std::thread thread_;  // last: it uses everything above
};

}  // namespace kvasir::api
