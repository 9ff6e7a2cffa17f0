// How answers are written, and what happens when time runs out.
#include <utility>

#include "http/connection.h"

namespace kvasir::http {
namespace {

constexpr std::string_view kEventStream = "text/event-stream";
constexpr std::string_view kComment = ": keep-alive\n\n";

}  // namespace

// The transport's own answer; false: no request has been read.
bool Connection::refuse(const Refusal& refusal) {
  if (frame_.id.empty()) frame_.id = hub_->make_request_id();
  frame_.keeps_alive = false;
  answer(refusal_response(refusal));
  return false;
}

void Connection::answer(const Response& response) {
  state_ = State::kAnswering;
  answered_ = true;
  read_deadline_.reset();
  append_answer(stream_.queue(), response, frame_);
}

void Connection::deliver(Delivery delivery) {
  if (state_ != State::kAnswering) return;
  if (hub_->draining) frame_.keeps_alive = false;
  if (delivery.response) append_answer(stream_.queue(), *delivery.response, frame_);
  if (delivery.stream_type) {
    streaming_ = true;
    if (frame_.http_1_0) frame_.keeps_alive = false;
    append_stream_head(stream_.queue(), *delivery.stream_type, frame_);
  }
  append_piece(stream_.queue(), delivery.data, frame_);
  if (streaming_ && delivery.ends) append_stream_end(stream_.queue(), frame_);
  answered_ = delivery.ends;
  const bool events_begin = delivery.stream_type && delivery.stream_type->starts_with(kEventStream);
  if (events_begin || comment_due_) comment_due_ = after_ms(hub_->limits.comment_ms);
  if (answered_) comment_due_.reset();
  settle();
}

void Connection::abandon() {
  if (state_ != State::kAnswering || answered_) return;
  if (streaming_) return drop();
  refuse({500, "the request was lost inside the server"});
  settle();
}

void Connection::send_more() {
  if (sending_ || stream_.bytes_to_send() == 0) return;
  sending_ = true;
  write_deadline_ = after_ms(hub_->limits.write_stall_ms);
  stream_.async_send_some(
      [self = shared_from_this()](ErrorCode error, size_t bytes) { self->on_sent(error, bytes); });
}

void Connection::on_sent(ErrorCode error, size_t bytes) {
  sending_ = false;
  write_deadline_.reset();
  if (state_ == State::kClosed) return;
  if (error) return close();
  stream_.sent(bytes);
  if (state_ == State::kLingering) end_output();
  settle();
}

void Connection::end_answer() {
  if (input_ended_) return close();
  if (!frame_.keeps_alive || hub_->draining) return linger();
  next_request();
}

void Connection::next_request() {
  state_ = State::kHead;
  scanner_ = {};
  head_begun_ = false;
  frame_ = {};
  exchange_.reset();
  streaming_ = false;
  answered_ = false;
  hub_->bodies_bytes -= std::exchange(body_bytes_, 0);
  read_deadline_ = after_ms(hub_->limits.idle_ms);
  process_input();
}

// Closing while the client still sends would reset the connection, and the client might never see
// the answer. So it is told that no more will come, and what it sends is thrown away for a while.
void Connection::linger() {
  state_ = State::kLingering;
  std::string().swap(input_);
  hub_->bodies_bytes -= std::exchange(body_bytes_, 0);
  read_deadline_ = after_ms(hub_->limits.linger_ms);
  stream_.queue_end();
  end_output();
}

// What TLS says at the end may have to be sent first.
void Connection::end_output() {
  if (stream_.bytes_to_send() == 0 && stream_.shutdown_send()) close();
}

// Tells the handler when much waits for the client, and when it has been taken.
void Connection::watch_reader() {
  const size_t waiting = stream_.bytes_to_send();
  const bool becomes_slow = !slow_ && streaming_ && waiting > hub_->limits.slow_high_bytes;
  const bool catches_up = slow_ && waiting <= hub_->limits.slow_low_bytes;
  if (!becomes_slow && !catches_up) return;
  slow_ = becomes_slow;
  slow_deadline_.reset();
  if (slow_) slow_deadline_ = after_ms(hub_->limits.slow_reader_ms);
  if (answered_) return;
  if (const auto exchange = exchange_.lock()) exchange->set_slow(slow_);
}

Connection::Deadline Connection::after_ms(uint64_t delay_ms) {
  return Clock::now() + std::chrono::milliseconds(delay_ms);
}

void Connection::arm_timer() {
  Deadline next;
  for (const Deadline& deadline : {read_deadline_, write_deadline_, slow_deadline_, comment_due_}) {
    if (deadline && (!next || *deadline < *next)) next = deadline;
  }
  if (!next || (timer_set_for_ && *timer_set_for_ <= *next)) return;
  timer_set_for_ = next;
  timer_.expires_at(*next);
  timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (error || self->state_ == State::kClosed) return;
    self->timer_set_for_.reset();
    self->check_deadlines();
  });
}

void Connection::check_deadlines() {
  const auto passed = [now = Clock::now()](const Deadline& deadline) {
    return deadline && *deadline <= now;
  };
  if (passed(write_deadline_) || passed(slow_deadline_)) return drop();
  if (passed(read_deadline_)) on_read_timeout();
  if (passed(comment_due_)) send_comment();
  settle();
}

void Connection::on_read_timeout() {
  if (is_idle() || state_ == State::kLingering) return close();
  refuse({408, "the request came too slowly"});
}

// To a client that is not there any more it can not be sent, and so that is noticed.
void Connection::send_comment() {
  comment_due_ = after_ms(hub_->limits.comment_ms);
  if (stream_.bytes_to_send() == 0) append_piece(stream_.queue(), kComment, frame_);
}

}  // namespace kvasir::http
