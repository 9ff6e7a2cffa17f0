#include "bench/load_connection.h"

#include <algorithm>
#include <boost/asio/write.hpp>

#include "base/check.h"
#include "base/clock.h"

namespace kvasir::bench {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

constexpr size_t kReadBytes = 8192;
constexpr size_t kUnparsedBytesMax = 65536;              // no header or chunk header is so long
constexpr uint64_t kBodyBytesMax = uint64_t{256} << 20;  // of an answer
constexpr size_t kDetailBytesMax = 300;

}  // namespace

uint64_t load_clock_us() {
  return base::SteadyClock().now_us();
}

void LoadConnection::start(LoadRequest request, const std::string& api_key, uint64_t due_us) {
  CHECK(!busy_);
  busy_ = true;
  result_ = {.started_us = due_us};
  message_ = {};
  message_.method(http::verb::post);
  message_.target("/v1/completions");
  message_.version(11);
  message_.set(http::field::host, target_.authority);
  message_.set(http::field::content_type, "application/json");
  message_.set(http::field::accept, "text/event-stream");
  if (!api_key.empty()) message_.set(http::field::authorization, "Bearer " + api_key);
  message_.body() = request.body;
  message_.prepare_payload();
  result_.request = std::move(request);
  fresh_ = !socket_.is_open();
  if (fresh_) return connect();
  write();
}

void LoadConnection::connect() {
  socket_.async_connect(target_.endpoint, [self = shared_from_this()](const Error& error) {
    if (!self->busy_) return;
    if (error) return self->finish(Outcome::kConnect, error.message());
    Error ignored;
    self->socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
    self->write();
  });
}

void LoadConnection::write() {
  buffer_.clear();
  parser_.emplace();
  parser_->body_limit(kBodyBytesMax);
  parser_->eager(true);
  reader_.emplace(result_.request.tokens_wanted);
  // A server that refuses early may not take the whole request; its answer says more than the
  // error of writing.
  http::async_write(socket_, message_, [self = shared_from_this()](const Error&, size_t) {
    if (self->busy_) self->read();
  });
}

void LoadConnection::read() {
  const auto on_read = [self = shared_from_this()](const Error& error, size_t bytes) {
    if (self->busy_) self->on_read(error, bytes);
  };
  socket_.async_read_some(buffer_.prepare(kReadBytes), on_read);
}

void LoadConnection::on_read(const Error& error, size_t bytes) {
  buffer_.commit(bytes);
  if (error == asio::error::eof) return on_end_of_stream();
  if (error) return on_lost(error);
  parse();
}

void LoadConnection::on_end_of_stream() {
  if (!parser_->got_some()) return on_lost(asio::error::eof);
  Error error;
  parser_->put_eof(error);
  if (error) return finish(Outcome::kCutOff, error.message());
  complete();
}

// The server may close a connection that was kept open just when the next request goes out.
void LoadConnection::on_lost(const Error& error) {
  if (fresh_ || parser_->got_some()) return finish(Outcome::kCutOff, error.message());
  fresh_ = true;
  Error ignored;
  socket_.close(ignored);
  connect();
}

// Not with Beast's own reading: that would hold back a chunk until the next one has begun.
void LoadConnection::parse() {
  const uint64_t now_us = load_clock_us();
  while (buffer_.size() > 0 && !parser_->is_done()) {
    Error error;
    buffer_.consume(parser_->put(buffer_.cdata(), error));
    take_body(now_us);
    if (error == http::error::need_more) break;
    if (error) return finish(Outcome::kMalformed, error.message());
  }
  if (parser_->is_done()) return complete();
  if (buffer_.size() > kUnparsedBytesMax) {
    return finish(Outcome::kMalformed, "a header that does not end");
  }
  read();
}

void LoadConnection::take_body(uint64_t now_us) {
  if (!parser_->is_header_done()) return;
  std::string& body = parser_->get().body();
  if (parser_->get().result_int() == 200) {
    reader_->push(body, now_us);
  } else {
    const size_t wanted = kDetailBytesMax - std::min(kDetailBytesMax, result_.detail.size());
    result_.detail.append(body, 0, wanted);
  }
  body.clear();
}

void LoadConnection::complete() {
  const bool kept = parser_->keep_alive();
  const size_t bytes_left = buffer_.size();
  const unsigned status = parser_->get().result_int();
  result_.status = status;
  if (bytes_left > 0) return finish(Outcome::kMalformed, "bytes after the end of the answer");
  if (!kept) {
    Error ignored;
    socket_.close(ignored);
  }
  if (status == 200) return finish(reader_->verdict(), "");
  const Outcome outcome = status == 429 ? Outcome::kRefused : Outcome::kStatus;
  finish(outcome, std::move(result_.detail));
}

void LoadConnection::finish(Outcome outcome, std::string detail) {
  const bool whole = outcome == Outcome::kOk || outcome == Outcome::kRefused;
  if (!whole) {
    Error ignored;
    socket_.close(ignored);
  }
  busy_ = false;
  result_.outcome = outcome;
  result_.finished_us = load_clock_us();
  if (reader_) result_.answer = reader_->take_answer();
  result_.detail = detail.empty() ? result_.answer.fault : std::move(detail);
  reader_.reset();
  on_finished_(shared_from_this(), std::move(result_));
}

}  // namespace kvasir::bench
