// How requests are read. connection_answer.cc writes the answers.
#include "http/connection.h"

#include <algorithm>
#include <boost/asio/error.hpp>
#include <utility>

namespace kvasir::http {
namespace {

namespace asio = boost::asio;

constexpr size_t kReadAheadBytes = 64 << 10;
constexpr size_t kIdCharactersMax = 128;

bool is_request_id(std::string_view id) {
  const auto may_stand = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  };
  return !id.empty() && id.size() <= kIdCharactersMax && std::ranges::all_of(id, may_stand);
}

}  // namespace

Connection::Connection(ByteStream stream, std::shared_ptr<Hub> hub, bool admin)
    : stream_(std::move(stream)),
      timer_(stream_.executor()),
      hub_(std::move(hub)),
      admin_(admin),
      state_(stream_.established() ? State::kHead : State::kHandshake) {}

void Connection::start() {
  hub_->connections.insert(shared_from_this());
  ++hub_->open;
  if (stream_.prepare()) return close();
  read_deadline_ = after_ms(hub_->limits.idle_ms);
  settle();
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  const std::shared_ptr<Connection> self = shared_from_this();
  // Otherwise the client must see that something is missing.
  if (is_idle() || answered_) stream_.try_end();
  state_ = State::kClosed;
  stream_.close();
  timer_.cancel();
  hub_->bodies_bytes -= std::exchange(body_bytes_, 0);
  hub_->connections.erase(self);
  --hub_->open;
  if (answered_) return;
  if (const auto exchange = exchange_.lock()) exchange->client_gone();
}

void Connection::close_if_idle() {
  if (is_idle()) close();
}

// Whether nothing of a request has come.
bool Connection::is_idle() const {
  return state_ == State::kHandshake || (state_ == State::kHead && !head_begun_);
}

// Closes without sending what waits; the kernel forgets its share as well.
void Connection::drop() {
  stream_.reset();
  close();
}

// Ends every event: starts what should be under way from here.
void Connection::settle() {
  if (state_ == State::kAnswering && answered_ && stream_.bytes_to_send() == 0) end_answer();
  if (state_ == State::kClosed) return;
  watch_reader();
  send_more();
  wait_for_input();
  arm_timer();
}

// Waits without a buffer of its own: on_readable() borrows one.
void Connection::wait_for_input() {
  if (waiting_ || input_ended_) return;
  if (state_ == State::kAnswering && input_.size() >= kReadAheadBytes) return;
  if (stream_.is_flooded()) return;
  waiting_ = true;
  stream_.async_wait_readable([self = shared_from_this()](ErrorCode error) {
    self->waiting_ = false;
    if (!error) self->on_readable();
  });
}

void Connection::on_readable() {
  if (state_ == State::kClosed) return;
  const size_t bytes_before = input_.size();
  const ErrorCode error = state_ == State::kLingering ? stream_.skip(hub_->read_buffer)
                                                      : stream_.read(hub_->read_buffer, input_);
  if (state_ == State::kHandshake) {
    continue_handshake();
  } else if (input_.size() > bytes_before) {
    process_input();
  }
  if (error) return on_read_error(error);
  settle();
}

void Connection::on_read_error(ErrorCode error) {
  const bool nothing_yet = error == asio::error::would_block || error == asio::error::try_again;
  // A client that has sent all it wants may still take the answer that is on its way.
  const bool takes_answer = error == asio::error::eof && answered_ && state_ == State::kAnswering;
  if (state_ == State::kHandshake && ByteStream::is_broken_tls(error)) {
    linger();  // TLS's own refusal is on its way
  } else if (!nothing_yet && !takes_answer) {
    return close();
  }
  input_ended_ = takes_answer;
  settle();
}

// The request may have come together with the end of the handshake.
void Connection::continue_handshake() {
  if (stream_.established()) return next_request();
  if (head_begun_) return;
  head_begun_ = true;
  read_deadline_ = after_ms(hub_->limits.head_ms);
}

void Connection::process_input() {
  bool goes_on = true;
  while (goes_on) {
    goes_on = (state_ == State::kHead && read_head()) || (state_ == State::kBody && read_body());
  }
  if (input_.empty()) input_.shrink_to_fit();
}

// Whether the head was there whole.
bool Connection::read_head() {
  if (!head_begun_) {
    // Some clients send one empty line more behind a body (RFC 9112, section 2.2).
    if (input_.starts_with("\r\n")) input_.erase(0, 2);
    if (input_.empty() || input_ == "\r") return false;
    head_begun_ = true;
    read_deadline_ = after_ms(hub_->limits.head_ms);
  }
  const auto size = scanner_.scan(input_, hub_->limits);
  if (!size) return refuse(size.error());
  if (!*size) return false;
  auto head = parse_head(std::string_view(input_).substr(0, **size), hub_->limits);
  if (!head) return refuse(head.error());
  input_.erase(0, **size);
  begin_request(*std::move(head));
  return true;
}

void Connection::begin_request(RequestHead head) {
  head.head.admin_listener = admin_;
  const std::string_view id = head.head.field("x-request-id");
  frame_ = {.id = is_request_id(id) ? std::string(id) : hub_->make_request_id(),
            .head_only = head.head.method == "HEAD",
            .http_1_0 = head.http_1_0,
            .keeps_alive = head.keeps_alive && !hub_->draining};
  Caller caller;
  if (const auto refusal = hub_->gate(head.head, caller)) {
    if (head.has_body()) frame_.keeps_alive = false;
    return answer(*refusal);
  }
  if (head.body_bytes > hub_->limits.body_bytes_max) {
    refuse({413, "the request body is too long"});
    return;
  }
  request_ = Request{.head = std::move(head.head), .id = frame_.id, .caller = caller};
  if (!head.has_body()) return hand_over();
  if (head.expects_continue && input_.empty()) stream_.queue() += "HTTP/1.1 100 Continue\r\n\r\n";
  body_.emplace(head, hub_->limits.body_bytes_max);
  body_bytes_due_ = body_bytes_per_turn();
  read_deadline_ = after_ms(hub_->limits.body_ms);
  state_ = State::kBody;
}

// Whether the body was there whole.
bool Connection::read_body() {
  const auto taken = body_->take(input_);
  if (!taken) return refuse(taken.error());
  input_.erase(0, *taken);
  if (!hold_body(*taken)) return refuse({503, "too many request bodies at a time; try again"});
  if (!body_->complete()) {
    if (body_bytes_ >= body_bytes_due_) {
      body_bytes_due_ = body_bytes_ + body_bytes_per_turn();
      read_deadline_ = after_ms(hub_->limits.body_ms);
    }
    return false;
  }
  request_->body = body_->release();
  body_.reset();
  hand_over();
  return true;
}

uint64_t Connection::body_bytes_per_turn() const {
  return uint64_t{hub_->limits.body_bytes_per_s_min} * hub_->limits.body_ms / 1000;
}

// Whether there is room for so much more of a body.
bool Connection::hold_body(size_t bytes) {
  if (hub_->bodies_bytes + bytes > hub_->limits.bodies_bytes_max) return false;
  hub_->bodies_bytes += bytes;
  body_bytes_ += bytes;
  return true;
}

void Connection::hand_over() {
  state_ = State::kAnswering;
  read_deadline_.reset();
  auto exchange = std::make_shared<OpenExchange>(*std::exchange(request_, std::nullopt),
                                                 weak_from_this(), hub_->mailbox);
  exchange_ = exchange;
  hub_->handler(std::move(exchange));
}

}  // namespace kvasir::http
