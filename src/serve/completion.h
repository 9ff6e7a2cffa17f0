// One completion call on its way: its prompts go to the service, the news of their answers come
// back and leave in the call's dialect.
//
//   engine thread: listener -> news --posted--> writer thread: Call words them -> Exchange
//
// Thread: start() on any thread; the rest is told above. Lives as long as an answer is under way.
#pragma once

#include <atomic>
#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "api/service.h"
#include "http/access_keys.h"
#include "http/exchange.h"
#include "serve/call.h"
#include "serve/metrics.h"
#include "serve/request_log.h"

namespace kvasir::serve {

// What completions use; all of it must outlive them.
struct CompletionParts {
  api::Service* service = nullptr;
  Metrics* metrics = nullptr;
  RequestLog* log = nullptr;
  const http::AccessKeys* keys = nullptr;
  boost::asio::any_io_executor writer;  // one thread
  api::Deadlines deadlines;
};

class Completion : public std::enable_shared_from_this<Completion> {
 public:
  // Answers the exchange, now or later. `on_end` is called once, before the end of the answer goes
  // out, or when the call has ended without one.
  static void start(const CompletionParts& parts, std::shared_ptr<http::Exchange> exchange,
                    std::unique_ptr<Call> call, std::function<void()> on_end);
  ~Completion();
  Completion(const Completion&) = delete;
  Completion& operator=(const Completion&) = delete;

 private:
  class Listener;  // of one prompt
  struct News {
    size_t prompt = 0;
    std::variant<api::AnswerPart, api::PromptScore> what;
  };

  Completion(const CompletionParts& parts, std::shared_ptr<http::Exchange> exchange,
             std::unique_ptr<Call> call, std::function<void()> on_end);
  void watch_client();
  void submit();
  void refuse(api::Refusal refusal);
  void hear(News news);
  void post_news();
  void write_news();
  void note_ending(const api::Ending& ending);
  void leave();
  void cancel();
  void hold(bool slow);

  CompletionParts parts_;
  std::shared_ptr<http::Exchange> exchange_;
  std::function<void()> on_end_;
  std::atomic<bool> gone_{false};  // nobody listens any more

  // The writer thread's, once everything is submitted.
  std::unique_ptr<Call> call_;
  size_t answers_open_ = 0;
  AnswerSummary summary_;

  std::mutex mutex_;
  std::vector<api::RequestId> ids_;
  std::vector<News> news_;
  bool submitted_ = false;
  bool posted_ = false;
  bool cancelled_ = false;
};

}  // namespace kvasir::serve
