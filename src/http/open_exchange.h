// The exchange that a handler holds. What it is told by the handler's threads it gathers, and hands
// over to the connection on the I/O thread: once, however many calls there were in between.
//
// Thread: as Exchange says; client_gone() and set_slow() I/O thread. Allocates: what is gathered.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "http/exchange.h"
#include "http/mailbox.h"

namespace kvasir::http {

// What has been added to an answer. Either a response, or parts of a stream in this order.
struct Delivery {
  std::optional<Response> response;
  std::optional<std::string> stream_type;  // it begins
  std::string data;
  bool ends = false;
};

// The connection that carries an exchange, as the exchange sees it. I/O thread only.
class AnswerSink {
 public:
  virtual ~AnswerSink() = default;
  virtual void deliver(Delivery delivery) = 0;
  // The handler has let go of the exchange without answering to the end.
  virtual void abandon() = 0;
};

class OpenExchange final : public Exchange, public std::enable_shared_from_this<OpenExchange> {
 public:
  OpenExchange(Request request, std::weak_ptr<AnswerSink> sink, std::shared_ptr<Mailbox> mailbox);
  ~OpenExchange() override;

  const Request& request() const override { return request_; }
  void respond(Response response) override;
  void begin_stream(std::string_view content_type) override;
  void write(std::string piece) override;
  void end_stream() override;
  void on_gone(std::function<void()> callback) override;
  void on_slow(std::function<void(bool slow)> callback) override;

  void client_gone();
  void set_slow(bool slow);

 private:
  enum class Phase : uint8_t { kOpen, kStreaming, kComplete };

  // Whether a hand-over will come. Requires: mutex_ is held.
  bool schedule();
  void hand_over();
  void tell_gone();

  const Request request_;
  const std::weak_ptr<AnswerSink> sink_;
  const std::shared_ptr<Mailbox> mailbox_;

  std::mutex mutex_;  // guards what the handler's threads and the I/O thread share:
  Phase phase_ = Phase::kOpen;
  bool scheduled_ = false;
  Delivery delivery_;
  std::function<void()> new_on_gone_;
  std::function<void(bool)> new_on_slow_;

  // I/O thread only.
  std::function<void()> on_gone_;
  std::function<void(bool)> on_slow_;
  bool gone_ = false;
};

}  // namespace kvasir::http
