#include "http/open_exchange.h"

#include <utility>

#include "base/check.h"

namespace kvasir::http {

OpenExchange::OpenExchange(Request request, std::weak_ptr<AnswerSink> sink,
                           std::shared_ptr<Mailbox> mailbox)
    : request_(std::move(request)), sink_(std::move(sink)), mailbox_(std::move(mailbox)) {}

OpenExchange::~OpenExchange() {
  if (phase_ == Phase::kComplete) return;
  // Nobody may own a connection but on the I/O thread: it could end there as well as here.
  mailbox_->post([sink = sink_] {
    if (const auto connection = sink.lock()) connection->abandon();
  });
}

void OpenExchange::respond(Response response) {
  const std::lock_guard lock(mutex_);
  CHECK(phase_ == Phase::kOpen);
  phase_ = Phase::kComplete;
  delivery_.response = std::move(response);
  delivery_.ends = true;
  schedule();
}

void OpenExchange::begin_stream(std::string_view content_type) {
  const std::lock_guard lock(mutex_);
  CHECK(phase_ == Phase::kOpen);
  phase_ = Phase::kStreaming;
  delivery_.stream_type = content_type;
  schedule();
}

void OpenExchange::write(std::string piece) {
  const std::lock_guard lock(mutex_);
  CHECK(phase_ == Phase::kStreaming);
  if (delivery_.data.empty()) {
    delivery_.data = std::move(piece);
  } else {
    delivery_.data += piece;
  }
  schedule();
}

void OpenExchange::end_stream() {
  const std::lock_guard lock(mutex_);
  CHECK(phase_ == Phase::kStreaming);
  phase_ = Phase::kComplete;
  delivery_.ends = true;
  schedule();
}

// A callback often holds the exchange; where no hand-over will come it must not be kept.
void OpenExchange::on_gone(std::function<void()> callback) {
  const std::lock_guard lock(mutex_);
  if (schedule()) new_on_gone_ = std::move(callback);
}

void OpenExchange::on_slow(std::function<void(bool slow)> callback) {
  const std::lock_guard lock(mutex_);
  if (schedule()) new_on_slow_ = std::move(callback);
}

bool OpenExchange::schedule() {
  if (!scheduled_) {
    scheduled_ = mailbox_->post([self = shared_from_this()] { self->hand_over(); });
  }
  return scheduled_;
}

void OpenExchange::hand_over() {
  Delivery delivery;
  {
    const std::lock_guard lock(mutex_);
    scheduled_ = false;
    delivery = std::exchange(delivery_, {});
    if (new_on_gone_) on_gone_ = std::exchange(new_on_gone_, nullptr);
    if (new_on_slow_) on_slow_ = std::exchange(new_on_slow_, nullptr);
  }
  if (gone_) return tell_gone();
  const bool ends = delivery.ends;
  if (const auto connection = sink_.lock()) connection->deliver(std::move(delivery));
  if (!ends) return;
  on_gone_ = nullptr;
  on_slow_ = nullptr;
}

void OpenExchange::client_gone() {
  gone_ = true;
  tell_gone();
}

void OpenExchange::tell_gone() {
  on_slow_ = nullptr;
  if (const auto callback = std::exchange(on_gone_, nullptr)) callback();
}

void OpenExchange::set_slow(bool slow) {
  if (on_slow_) on_slow_(slow);
}

}  // namespace kvasir::http
