// The way onto the I/O thread. Calls that pile up while it is busy cost it one wake-up together.
//
// Thread: post() any; close() I/O thread. Allocates: the list of calls.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace kvasir::http {

class Mailbox : public std::enable_shared_from_this<Mailbox> {
 public:
  // `context` must outlive the mailbox until it is closed.
  explicit Mailbox(boost::asio::io_context& context) : context_(context) {}

  // Runs `call` on the I/O thread, after those posted before; false: closed, it will never run.
  bool post(std::function<void()> call);
  // Runs the calls that wait, and takes no more.
  void close();

 private:
  void run();

  boost::asio::io_context& context_;
  std::mutex mutex_;
  std::vector<std::function<void()>> calls_;
  bool woken_ = false;  // run() is under way
  bool closed_ = false;
};

}  // namespace kvasir::http
