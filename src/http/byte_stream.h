// The bytes of one connection: a socket, and a TLS session on it where the listener speaks TLS.
// What is queued is sent in this order, as far as the client takes it.
//
// Over TLS only records() of the session go out; what is queued becomes records no sooner than
// there are none left, so that a slow reader costs the same memory as without TLS.
//
// Thread: I/O thread only. Allocates: what is queued; over TLS a session, and 64 KiB of records
// while they are sent.
#pragma once

#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "http/outbox.h"
#include "http/tls_session.h"

namespace kvasir::http {

class ByteStream {
 public:
  using ErrorCode = boost::system::error_code;
  using Socket = boost::asio::ip::tcp::socket;

  // `socket` has just been accepted. `tls`: nullptr: no TLS.
  ByteStream(Socket socket, const TlsContext* tls);

  // Prepares the socket. Before all others below.
  ErrorCode prepare();
  Socket::executor_type executor() { return socket_.get_executor(); }
  // Whether requests may come: not before TLS has agreed with the client.
  bool established() const { return tls_ == nullptr || tls_->established(); }

  // Calls `handler(error)` when there is something to read. One at a time.
  template <typename Handler>
  void async_wait_readable(Handler handler) {
    socket_.async_wait(Socket::wait_read, std::move(handler));
  }
  // Appends what has come to `input`, by way of `buffer`. Errors: would_block: nothing has; eof: no
  // more will come, but something may have; is_broken_tls(); what happened to the socket.
  ErrorCode read(std::span<char> buffer, std::string& input);
  // Throws away what has come. Errors: the same.
  ErrorCode skip(std::span<char> buffer);
  static bool is_broken_tls(ErrorCode error);

  // Append here what is to be sent.
  std::string& queue() { return outbox_.queue(); }
  size_t bytes_to_send() const {
    return outbox_.bytes() + (tls_ == nullptr ? 0 : tls_->records().bytes());
  }
  // Whether TLS itself has more to say than an honest client makes it say.
  bool is_flooded() const;
  // Calls `handler(error, bytes)` when some bytes, at least one, have been taken; after that sent()
  // must follow. One at a time. Requires: bytes_to_send() > 0.
  template <typename Handler>
  void async_send_some(Handler handler) {
    if (const std::optional<std::string_view> next = next_to_send()) {
      return socket_.async_write_some(boost::asio::buffer(*next), std::move(handler));
    }
    boost::asio::post(executor(), [handler = std::move(handler)] { handler(broken_tls(), 0); });
  }
  void sent(size_t bytes);

  // Nothing more will be queued: TLS tells the client, behind all the rest.
  void queue_end();
  // The same for TCP. Requires: all has been sent.
  ErrorCode shutdown_send();
  // queue_end(), where that can be sent whole, without waiting.
  void try_end();
  void close();
  // Closes, and the kernel forgets what it has not sent yet.
  void reset();

 private:
  static ErrorCode broken_tls();
  std::optional<std::string_view> next_to_send();

  Socket socket_;
  std::unique_ptr<TlsSession> tls_;  // nullptr: no TLS
  Outbox outbox_;
};

}  // namespace kvasir::http
