#include "http/exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "http/testing_client.h"

namespace kvasir::http {
namespace {

using std::chrono::milliseconds;
using testing::Client;
using testing::EchoOver;
using testing::eventually;
using testing::Reply;
using testing::Wire;

const std::string kOpen = testing::get("/open");
const std::string kGet = testing::get("/a");
constexpr std::string_view kEvents = "text/event-stream";

class ExchangeOver : public ::testing::TestWithParam<Wire> {};
INSTANTIATE_TEST_SUITE_P(Wires, ExchangeOver, ::testing::Values(Wire::kPlain, Wire::kTls),
                         testing::wire_name);

TEST_P(ExchangeOver, streams_in_chunks_and_keeps_the_connection) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send(kOpen);
  const auto exchange = echo.take();
  exchange->begin_stream(kEvents);
  const Reply head = client.read_head();
  EXPECT_EQ(head.status, 200u);
  EXPECT_EQ(head.field("Content-Type"), kEvents);
  EXPECT_EQ(head.field("Cache-Control"), "no-cache");
  EXPECT_EQ(head.field("X-Accel-Buffering"), "no");
  EXPECT_EQ(head.field("Transfer-Encoding"), "chunked");
  exchange->write("data: 1\n\n");
  EXPECT_EQ(client.read_chunk(), "data: 1\n\n");
  exchange->write("");  // an empty chunk would be the last one
  exchange->write("data: 2\n\n");
  EXPECT_EQ(client.read_chunk(), "data: 2\n\n");
  exchange->end_stream();
  EXPECT_EQ(client.read_chunk(), std::nullopt);
  EXPECT_EQ(client.send(kGet).read_reply().status, 200u);
}

TEST_P(ExchangeOver, streams_until_the_end_of_the_connection_to_old_clients) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send("GET /open HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const auto exchange = echo.take();
  exchange->begin_stream(kEvents);
  exchange->write("data: 1\n\n");
  EXPECT_EQ(client.read_head().field("Connection"), "close");
  EXPECT_EQ(client.read_bytes(9), "data: 1\n\n");  // all has been sent before the end is known
  exchange->end_stream();
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(client.told_end(), GetParam() == Wire::kTls);
}

TEST_P(ExchangeOver, streams_no_body_to_head) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send("HEAD /open HTTP/1.1\r\nHost: me\r\n\r\n");
  const auto exchange = echo.take();
  exchange->begin_stream(kEvents);
  EXPECT_EQ(client.read_head().status, 200u);
  exchange->write("data: 1\n\n");
  exchange->end_stream();
  EXPECT_EQ(client.send(kGet).read_reply().body, "GET /a ");
}

// Many threads write, each to its own stream, as fast as they can.
TEST_P(ExchangeOver, delivers_thousands_of_small_writes_in_order) {
  constexpr int kStreams = 4;
  constexpr int kWrites = 5000;
  EchoOver echo(GetParam());
  std::vector<Client> clients;
  std::vector<std::thread> writers;
  std::string expected;
  for (int i = 0; i < kWrites; ++i) expected += std::to_string(i) + "\n";
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(echo.connect());
    clients.back().send(kOpen);
    writers.emplace_back([exchange = echo.take()] {
      exchange->begin_stream("text/plain");
      for (int n = 0; n < kWrites; ++n) exchange->write(std::to_string(n) + "\n");
      exchange->end_stream();
    });
  }
  for (Client& client : clients) EXPECT_EQ(client.read_reply().body, expected);
  for (std::thread& writer : writers) writer.join();
}

TEST_P(ExchangeOver, sends_large_answers_whole) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send(kOpen);
  std::string body(8 << 20, 'x');
  for (size_t i = 0; i < body.size(); i += 1000) body[i] = static_cast<char>('a' + i / 1000 % 26);
  echo.take()->respond({.body = body});
  EXPECT_TRUE(client.read_reply().body == body);
}

TEST_P(ExchangeOver, tells_once_that_the_client_has_gone) {
  EchoOver echo(GetParam());
  for (const bool streaming : {false, true}) {
    for (const bool reset : {false, true}) {
      Client client = echo.connect();
      client.send(kOpen);
      const auto exchange = echo.take();
      std::atomic<int> gone = 0;
      exchange->on_gone([&gone] { ++gone; });
      if (streaming) exchange->begin_stream(kEvents);
      if (streaming) client.read_head();
      if (reset) {
        client.reset();
      } else {
        client.hang_up();
      }
      EXPECT_TRUE(eventually([&] { return gone == 1; })) << streaming << reset;
      if (streaming) {
        exchange->write("too late");
        exchange->end_stream();
      } else {
        exchange->respond({});
      }
      ASSERT_TRUE(eventually([&] { return exchange.use_count() == 1; }));
      EXPECT_EQ(gone, 1);
    }
  }
  EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
}

TEST_P(ExchangeOver, tells_that_the_client_has_gone_to_who_asks_later) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send(kOpen);
  const auto exchange = echo.take();
  client.hang_up();
  ASSERT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
  std::atomic<bool> gone = false;
  exchange->on_gone([&gone] { gone = true; });
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
}

TEST_P(ExchangeOver, tells_nothing_when_the_client_leaves_after_its_answer) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send(kOpen);
  const auto exchange = echo.take();
  std::atomic<bool> gone = false;
  exchange->on_gone([&gone, exchange] { gone = true; });
  exchange->respond({.body = "all"});
  EXPECT_EQ(client.read_reply().body, "all");
  client.hang_up();
  ASSERT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
  EXPECT_FALSE(gone);
  EXPECT_EQ(exchange.use_count(), 1);  // the callback has let go of it
}

TEST_P(ExchangeOver, answers_for_a_handler_that_forgets_to) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send(kOpen);
  echo.take();
  const Reply reply = client.read_reply();
  EXPECT_EQ(reply.status, 500u);
  EXPECT_THAT(reply.body, ::testing::HasSubstr("server_error"));
  EXPECT_TRUE(client.closed());

  Client streaming = echo.connect();
  streaming.send(kOpen);
  echo.take()->begin_stream(kEvents);
  EXPECT_FALSE(streaming.read_to_end().ends_with("0\r\n\r\n"));
  EXPECT_FALSE(streaming.told_end());
}

TEST_P(ExchangeOver, comments_on_silence) {
  EchoOver echo(GetParam(), {.comment_ms = 30});
  Client client = echo.connect();
  client.send(kOpen);
  const auto exchange = echo.take();
  exchange->begin_stream(kEvents);
  client.read_head();
  EXPECT_EQ(client.read_chunk(), ": keep-alive\n\n");
  EXPECT_EQ(client.read_chunk(), ": keep-alive\n\n");
  exchange->write("data: 1\n\n");
  std::string got;
  while (!got.ends_with("data: 1\n\n")) got += client.read_chunk().value();
  exchange->end_stream();

  Client plain = echo.connect();
  plain.send(kOpen);
  const auto other = echo.take();
  other->begin_stream("text/plain");
  other->write("1");
  std::this_thread::sleep_for(milliseconds(80));
  other->end_stream();
  EXPECT_EQ(plain.read_reply().body, "1");
}

// Writes pieces on a thread of its own, with pauses while the reader is slow.
class Writer {
 public:
  explicit Writer(std::shared_ptr<Exchange> exchange)
      : exchange_(std::move(exchange)), seen_(std::make_shared<Seen>()) {
    exchange_->on_slow([seen = seen_](bool slow) {
      if (seen->slow == slow) seen->alternates = false;
      seen->slow = slow;
      ++seen->changes;
    });
    exchange_->on_gone([seen = seen_] { seen->gone = true; });
    exchange_->begin_stream("text/plain");
    thread_ = std::thread([this] { run(); });
  }
  ~Writer() {
    stopped_ = true;
    thread_.join();
    exchange_->end_stream();
  }
  bool slow() const { return seen_->slow; }
  bool gone() const { return seen_->gone; }
  int changes() const { return seen_->changes; }
  bool alternates() const { return seen_->alternates; }

 private:
  // The callbacks may outlive the writer.
  struct Seen {
    std::atomic<bool> slow = false;
    std::atomic<bool> gone = false;
    std::atomic<bool> alternates = true;
    std::atomic<int> changes = 0;
  };

  void run() {
    const std::string piece(10'000, 'p');
    while (!stopped_) {
      if (!seen_->slow && !seen_->gone) exchange_->write(piece);
      std::this_thread::sleep_for(std::chrono::microseconds(100));
    }
  }

  std::shared_ptr<Exchange> exchange_;
  std::shared_ptr<Seen> seen_;
  std::atomic<bool> stopped_ = false;
  std::thread thread_;
};

TEST_P(ExchangeOver, pauses_for_a_slow_reader_and_goes_on_when_it_reads) {
  EchoOver echo(GetParam());
  Client client = echo.connect(8 << 10);
  client.send(kOpen);
  Writer writer(echo.take());
  // At first the kernel's buffers still take what is too much here.
  int changes = 0;
  ASSERT_TRUE(eventually([&] {
    changes = writer.changes();
    std::this_thread::sleep_for(milliseconds(20));
    return writer.slow() && writer.changes() == changes;
  }));
  client.read_head();
  while (writer.changes() == changes) client.read_chunk();
  EXPECT_TRUE(writer.alternates());
  EXPECT_FALSE(writer.gone());
}

TEST_P(ExchangeOver, drops_a_reader_that_stays_slow_while_others_go_on) {
  EchoOver echo(GetParam(), {.slow_reader_ms = 100});
  Client slow = echo.connect(8 << 10);
  slow.send(kOpen);
  Writer to_slow(echo.take());
  Client good = echo.connect();
  good.send(kOpen);
  const auto exchange = echo.take();
  exchange->begin_stream("text/plain");
  good.read_head();
  while (!to_slow.gone()) {
    exchange->write("still here");
    ASSERT_EQ(good.read_chunk(), "still here");
  }
  EXPECT_TRUE(to_slow.slow());
  exchange->end_stream();
  EXPECT_EQ(good.read_chunk(), std::nullopt);
  EXPECT_EQ(echo.server().connections(), 1u);
}

TEST_P(ExchangeOver, drops_a_client_that_takes_nothing_of_a_whole_answer) {
  EchoOver echo(GetParam(), {.write_stall_ms = 100});
  Client client = echo.connect(8 << 10);
  client.send(kOpen);
  const auto exchange = echo.take();
  exchange->respond({.body = std::string(32 << 20, 'x')});
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
}

}  // namespace
}  // namespace kvasir::http
