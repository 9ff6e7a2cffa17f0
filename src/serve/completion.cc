#include "serve/completion.h"

#include <boost/asio/post.hpp>
#include <optional>
#include <utility>

#include "serve/api_error.h"

namespace kvasir::serve {
namespace {

constexpr unsigned kRetryAfterS = 1;

}  // namespace

class Completion::Listener : public api::AnswerListener {
 public:
  Listener(std::shared_ptr<Completion> completion, size_t prompt, const base::Clock& clock)
      : completion_(std::move(completion)),
        prompt_(prompt),
        clock_(clock),
        arrived_us_(clock.now_us()) {}

  void on_part(api::AnswerPart part) override {
    if (!part.tokens.empty()) note_times(part);
    if (part.ending) completion_->parts_.metrics->on_answer_ended(*part.ending);
    completion_->hear({prompt_, std::move(part)});
  }
  void on_score(const api::PromptScore& score) override { completion_->hear({prompt_, score}); }

 private:
  // When tokens come, as the engine makes them.
  void note_times(const api::AnswerPart& part) {
    if (part.choice >= last_us_.size()) last_us_.resize(part.choice + 1);
    const uint64_t now_us = clock_.now_us();
    const std::optional<uint64_t> before_us = std::exchange(last_us_[part.choice], now_us);
    if (before_us) {
      completion_->parts_.metrics->on_tokens(now_us - *before_us, part.tokens.size());
    } else {
      completion_->parts_.metrics->on_first_token(now_us - arrived_us_);
    }
  }

  std::shared_ptr<Completion> completion_;
  size_t prompt_;
  const base::Clock& clock_;
  uint64_t arrived_us_;
  std::vector<std::optional<uint64_t>> last_us_;  // of its last tokens, by choice
};

void Completion::start(const CompletionParts& parts, std::shared_ptr<http::Exchange> exchange,
                       std::unique_ptr<Call> call, std::function<void()> on_end) {
  std::shared_ptr<Completion> completion(
      new Completion(parts, std::move(exchange), std::move(call), std::move(on_end)));
  completion->watch_client();
  completion->submit();
}

Completion::Completion(const CompletionParts& parts, std::shared_ptr<http::Exchange> exchange,
                       std::unique_ptr<Call> call, std::function<void()> on_end)
    : parts_(parts),
      exchange_(std::move(exchange)),
      on_end_(std::move(on_end)),
      call_(std::move(call)) {
  for (const api::GenerateRequest& request : call_->requests()) answers_open_ += request.choices;
}

Completion::~Completion() {
  const http::Request& request = exchange_->request();
  parts_.log->write(request, parts_.keys->tenants()[request.caller.tenant].name, summary_);
  leave();
}

void Completion::leave() {
  if (const auto on_end = std::exchange(on_end_, nullptr)) on_end();
}

// The exchange keeps the callbacks, and this keeps the exchange: they hold it weakly.
void Completion::watch_client() {
  const std::weak_ptr<Completion> weak = weak_from_this();
  exchange_->on_gone([weak] {
    if (const auto completion = weak.lock()) {
      completion->gone_.store(true);
      completion->cancel();
    }
  });
  exchange_->on_slow([weak](bool slow) {
    if (const auto completion = weak.lock()) completion->hold(slow);
  });
}

// News wait until all prompts are taken: one that is refused refuses the call.
void Completion::submit() {
  const std::string begin = call_->streams() ? call_->begin() : std::string();
  std::vector<api::GenerateRequest> requests = call_->requests();
  for (size_t i = 0; i < requests.size(); ++i) {
    auto listener = std::make_shared<Listener>(shared_from_this(), i, parts_.service->clock());
    const auto id = parts_.service->submit({std::move(requests[i]), parts_.deadlines}, listener);
    if (!id) return refuse(id.error());
    const std::lock_guard lock(mutex_);
    ids_.push_back(*id);
  }
  if (call_->streams()) {
    exchange_->begin_stream("text/event-stream");
    exchange_->write(begin);
  }
  bool cancelled = false;
  {
    const std::lock_guard lock(mutex_);
    submitted_ = true;
    cancelled = cancelled_;
    if (!news_.empty()) post_news();
  }
  if (cancelled) cancel();
}

void Completion::refuse(api::Refusal refusal) {
  cancel();
  const bool full = refusal == api::Refusal::kQueueFull;
  parts_.metrics->on_refused(full ? "queue_full" : "draining");
  summary_.finish = full ? "queue_full" : "draining";
  leave();
  exchange_->respond(
      error_response(full ? ApiError{.status = 429,
                                     .message = "the queue is full; try again later",
                                     .code = "queue_full",
                                     .retry_after_s = kRetryAfterS}
                          : ApiError{.status = 503,
                                     .message = "the server is shutting down; ask another one",
                                     .code = "shutting_down",
                                     .retry_after_s = kRetryAfterS}));
}

void Completion::hear(News news) {
  const std::lock_guard lock(mutex_);
  news_.push_back(std::move(news));
  if (submitted_) post_news();
}

// Requires: mutex_ is held.
void Completion::post_news() {
  if (std::exchange(posted_, true)) return;
  boost::asio::post(parts_.writer, [self = shared_from_this()] { self->write_news(); });
}

void Completion::write_news() {
  std::vector<News> all;
  {
    const std::lock_guard lock(mutex_);
    std::swap(all, news_);
    posted_ = false;
  }
  std::string bytes;
  for (const News& news : all) {
    if (const auto* score = std::get_if<api::PromptScore>(&news.what)) {
      call_->score(news.prompt, *score);
      continue;
    }
    const auto& part = std::get<api::AnswerPart>(news.what);
    bytes += call_->part(news.prompt, part);
    if (part.ending) note_ending(*part.ending);
  }
  if (call_->failed()) cancel();
  if (gone_.load()) return;
  // Who has the end of an answer may ask again at once.
  if (answers_open_ == 0) leave();
  if (!call_->streams()) {
    if (answers_open_ == 0) exchange_->respond(call_->whole());
    return;
  }
  if (answers_open_ == 0) bytes += call_->end();
  if (!bytes.empty()) exchange_->write(std::move(bytes));
  if (answers_open_ == 0) exchange_->end_stream();
}

void Completion::note_ending(const api::Ending& ending) {
  --answers_open_;
  summary_.finish = api::end_reason_name(ending.reason);
  if (summary_.answers++ == 0) {
    summary_.prompt_tokens = ending.stats.prompt_tokens;
    summary_.tokens_cached = ending.stats.tokens_cached;
    summary_.ttft_us = ending.stats.first_token_us - ending.stats.submitted_us;
  }
  summary_.tokens_generated += ending.stats.tokens_generated;
}

void Completion::cancel() {
  std::vector<api::RequestId> ids;
  {
    const std::lock_guard lock(mutex_);
    cancelled_ = true;
    ids = ids_;
  }
  for (const api::RequestId id : ids) parts_.service->cancel(id);
}

void Completion::hold(bool slow) {
  const std::lock_guard lock(mutex_);
  for (const api::RequestId id : ids_) {
    if (slow) {
      parts_.service->pause(id);
    } else {
      parts_.service->resume(id);
    }
  }
}

}  // namespace kvasir::serve
