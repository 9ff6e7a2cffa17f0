#include "http/mailbox.h"

#include <boost/asio/post.hpp>
#include <utility>

namespace kvasir::http {

bool Mailbox::post(std::function<void()> call) {
  const std::lock_guard lock(mutex_);
  if (closed_) return false;
  calls_.push_back(std::move(call));
  if (!woken_) boost::asio::post(context_, [self = shared_from_this()] { self->run(); });
  woken_ = true;
  return true;
}

void Mailbox::run() {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard lock(mutex_);
    calls.swap(calls_);
    woken_ = false;
  }
  for (const std::function<void()>& call : calls) call();
}

void Mailbox::close() {
  {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }
  run();
}

}  // namespace kvasir::http
