// One connection to a server under test, and the request it works on. It stays open for the next
// request where the server allows it.
//
// Thread: that of its io_context. Allocates: in proportion to the answer; the read buffer is small.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "bench/load_request.h"
#include "bench/load_stream.h"

namespace kvasir::bench {

struct LoadTarget {
  boost::asio::ip::tcp::endpoint endpoint;
  std::string authority;
};

struct StreamResult {
  LoadRequest request;
  Outcome outcome = Outcome::kOk;
  unsigned status = 0;      // HTTP; 0: none came
  uint64_t started_us = 0;  // when it was due
  uint64_t finished_us = 0;
  StreamAnswer answer;
  std::string detail;  // what went wrong, in the words of the server or the system
};

class LoadConnection : public std::enable_shared_from_this<LoadConnection> {
 public:
  using OnFinished = std::function<void(const std::shared_ptr<LoadConnection>&, StreamResult)>;

  // `target` must outlive the connection; on_finished is called once per start(), never inside it.
  LoadConnection(boost::asio::io_context& io, const LoadTarget& target, OnFinished on_finished)
      : target_(target), on_finished_(std::move(on_finished)), socket_(io) {}

  // Sends a request. `api_key` may be empty. Requires: none is being worked on.
  void start(LoadRequest request, const std::string& api_key, uint64_t due_us);
  // Leaves the request and closes. Requires: one is being worked on.
  void give_up(Outcome outcome) { finish(outcome, ""); }
  // Another request may follow on the same connection.
  bool reusable() const { return !busy_ && socket_.is_open(); }
  uint64_t started_us() const { return result_.started_us; }

 private:
  using Error = boost::system::error_code;
  using Parser = boost::beast::http::response_parser<boost::beast::http::string_body>;

  void connect();
  void write();
  void read();
  void on_read(const Error& error, size_t bytes);
  void on_end_of_stream();
  void on_lost(const Error& error);
  void parse();
  void take_body(uint64_t now_us);
  void complete();
  void finish(Outcome outcome, std::string detail);

  const LoadTarget& target_;
  OnFinished on_finished_;
  boost::asio::ip::tcp::socket socket_;
  bool busy_ = false;
  bool fresh_ = true;  // connected for this request: what fails is not the last one's end
  boost::beast::http::request<boost::beast::http::string_body> message_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  std::optional<AnswerReader> reader_;
  StreamResult result_;
};

// Monotonic.
uint64_t load_clock_us();

}  // namespace kvasir::bench
