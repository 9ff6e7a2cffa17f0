// One client's connection: reads requests one after another, and writes the answers in the same
// order. The next request is looked at once the answer before it has been taken whole.
//
//   kHandshake ──> kHead ──> kBody ──> kAnswering ──> kHead      state_, and what it waits for
//       │            │         │           │
//       └────────────┴─────────┴───────────┴──> kLingering ──> kClosed
//
// A TLS handshake is held to the times of a head: as long until it begins, as long until it is
// complete. What is no TLS is dropped without an answer that such a client would not understand.
//
// While an answer is being made the connection goes on reading, so that a client that leaves is
// noticed at once. One that only stops sending looks the same, and counts as gone. Other bytes
// belong to the next request. Of those it keeps no more than kReadAheadBytes and a buffer full;
// where more wait, only a failed write tells that the client has left. Over TLS it is the same,
// whether the client ends TLS (close_notify) or the connection below it.
//
// Thread: I/O thread only. Allocates: a request, its answer; next to nothing while idle, but for a
// TLS session.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "http/body_reader.h"
#include "http/byte_stream.h"
#include "http/hub.h"
#include "http/open_exchange.h"
#include "http/request_head.h"
#include "http/response_text.h"

namespace kvasir::http {

class Connection final : public AnswerSink, public std::enable_shared_from_this<Connection> {
 public:
  // `stream` is new.
  Connection(ByteStream stream, std::shared_ptr<Hub> hub, bool admin);

  void start();
  // At once, whatever it is doing.
  void close();
  void close_if_idle();

  void deliver(Delivery delivery) override;
  void abandon() override;

 private:
  using Clock = std::chrono::steady_clock;
  using Deadline = std::optional<Clock::time_point>;
  using ErrorCode = boost::system::error_code;

  enum class State : uint8_t {
    kHandshake,  // TLS agrees with the client
    kHead,       // idle, or a head comes in
    kBody,       // a body comes in
    kAnswering,  // the answer is being made or sent
    kLingering,  // nothing more will be sent: waits for the client to close
    kClosed,
  };

  // Reading.
  void wait_for_input();
  void on_readable();
  void on_read_error(ErrorCode error);
  void continue_handshake();
  void process_input();
  bool read_head();
  void begin_request(RequestHead head);
  bool read_body();
  bool hold_body(size_t bytes);
  uint64_t body_bytes_per_turn() const;
  void hand_over();

  // Answering.
  bool refuse(const Refusal& refusal);
  void answer(const Response& response);
  void send_more();
  void on_sent(ErrorCode error, size_t bytes);
  void end_answer();
  void next_request();
  void linger();
  void end_output();
  void watch_reader();

  // Deadlines.
  static Deadline after_ms(uint64_t delay_ms);
  void arm_timer();
  void check_deadlines();
  void on_read_timeout();
  void send_comment();

  bool is_idle() const;
  void settle();
  void drop();

  ByteStream stream_;
  boost::asio::steady_timer timer_;
  const std::shared_ptr<Hub> hub_;
  const bool admin_;  // came in by a listener for operators
  State state_ = State::kHead;

  std::string input_;     // read, not looked at yet
  bool waiting_ = false;  // for input
  bool input_ended_ = false;

  // The request.
  HeadScanner scanner_;
  bool head_begun_ = false;         // or the handshake
  std::optional<Request> request_;  // its head, while the body comes in
  std::optional<BodyReader> body_;
  uint64_t body_bytes_due_ = 0;  // by the deadline, or the client is too slow
  uint64_t body_bytes_ = 0;      // of it, as they count in the hub

  // Its answer.
  AnswerFrame frame_;
  std::weak_ptr<OpenExchange> exchange_;
  bool streaming_ = false;
  bool answered_ = false;  // all of the answer has been queued
  bool slow_ = false;      // the reader of the stream
  bool sending_ = false;

  // One timer for all deadlines. It is set again only for an earlier one.
  Deadline read_deadline_;   // for the client to send: what depends on the state
  Deadline write_deadline_;  // for the client to take something
  Deadline slow_deadline_;   // for a slow reader to be slow no more
  Deadline comment_due_;
  Deadline timer_set_for_;
};

}  // namespace kvasir::http
