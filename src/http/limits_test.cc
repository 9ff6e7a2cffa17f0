#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <ctime>
#include <string>
#include <thread>
#include <vector>

#include "http/options.h"
#include "http/testing_client.h"

namespace kvasir::http {
namespace {

using std::chrono::milliseconds;
using testing::Client;
using testing::EchoOver;
using testing::EchoServer;
using testing::eventually;
using testing::post;
using testing::Reply;
using testing::Wire;

const std::string kGet = testing::get("/a");

class LimitsOver : public ::testing::TestWithParam<Wire> {};
INSTANTIATE_TEST_SUITE_P(Wires, LimitsOver, ::testing::Values(Wire::kPlain, Wire::kTls),
                         testing::wire_name);

TEST(Limits, cuts_slow_heads_bodies_and_idle_connections_off) {
  EchoServer echo({.idle_ms = 100, .head_ms = 100, .body_ms = 100, .body_bytes_per_s_min = 1000});
  Client idle = echo.connect();
  Client slow_head = echo.connect();
  Client slow_body = echo.connect();
  slow_body.send("POST /b HTTP/1.1\r\nHost: me\r\nContent-Length: 9\r\n\r\n");
  // Every byte comes soon after the one before, and yet the head takes too long.
  std::atomic<bool> stopped = false;
  std::thread dripping([&] {
    slow_head.send("GET /a HTTP/1.1\r\n");
    while (!stopped) {
      slow_head.send("X");
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  EXPECT_EQ(slow_head.read_reply().status, 408u);
  stopped = true;
  dripping.join();
  EXPECT_EQ(slow_body.read_reply().status, 408u);
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(slow_body.closed());
}

TEST_P(LimitsOver, waits_longer_for_a_body_that_comes_fast_enough) {
  EchoOver echo(GetParam(), {.body_ms = 100, .body_bytes_per_s_min = 10'000});
  Client client = echo.connect();
  client.send("POST /b HTTP/1.1\r\nHost: me\r\nContent-Length: 15000\r\n\r\n");
  for (int i = 0; i < 15; ++i) {  // 300 ms, at 50,000 bytes/s
    client.send(std::string(1000, 'x'));
    std::this_thread::sleep_for(milliseconds(20));
  }
  EXPECT_EQ(client.read_reply().status, 200u);
}

TEST_P(LimitsOver, a_body_that_began_fast_may_not_stand_still) {
  EchoOver echo(GetParam(), {.body_ms = 100, .body_bytes_per_s_min = 10});
  Client client = echo.connect();
  client.send("POST /b HTTP/1.1\r\nHost: me\r\nContent-Length: 60001\r\n\r\n");
  client.send(std::string(60'000, 'x'));  // at the lowest rate they would take more than an hour
  EXPECT_EQ(client.read_reply().status, 408u);
}

TEST_P(LimitsOver, bounds_the_bodies_of_all_requests_together) {
  EchoOver echo(GetParam(), {.bodies_bytes_max = 1000});
  Client first = echo.connect();
  first.send(post("/open", std::string(800, 'x')));
  const auto exchange = echo.take();
  Client second = echo.connect();
  const Reply reply = second.send(post("/b", std::string(800, 'x'))).read_reply();
  EXPECT_EQ(reply.status, 503u);
  EXPECT_EQ(reply.field("Retry-After"), "1");
  exchange->respond({});
  EXPECT_EQ(first.read_reply().status, 200u);
  EXPECT_EQ(first.send(post("/b", std::string(800, 'x'))).read_reply().status, 200u);
}

TEST(Limits, closes_connections_beyond_the_limit) {
  EchoServer echo({.connections_max = 2});
  EXPECT_EQ(echo.server().connections_max(), 2u);
  Client first = echo.connect();
  Client second = echo.connect();
  EXPECT_EQ(second.send(kGet).read_reply().status, 200u);
  EXPECT_TRUE(echo.connect().closed());
  first.hang_up();
  ASSERT_TRUE(eventually([&] { return echo.server().connections() == 1; }));
  EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
}

TEST(Limits, raises_the_limit_on_open_files) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit low = before;
  low.rlim_cur = std::min<rlim_t>(before.rlim_max, 256);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EchoServer echo;
  rlimit now{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &now), 0);
  EXPECT_EQ(now.rlim_cur, before.rlim_max);
  EXPECT_GT(echo.server().connections_max(), 0u);
  EXPECT_LT(echo.server().connections_max(), before.rlim_max);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

// Out of files, accepting fails until one is closed; until then the thread must not spin.
TEST(Limits, waits_when_there_are_no_files_left) {
  EchoServer echo({.accept_retry_ms = 10});
  ASSERT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
  ASSERT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
  Client client;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit none = before;
  none.rlim_cur = 3;  // those that are open stay
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const std::clock_t begin = std::clock();
  client.connect(echo.port()).send(kGet);
  std::this_thread::sleep_for(milliseconds(200));
  const double cpu_s = double(std::clock() - begin) / CLOCKS_PER_SEC;
  EXPECT_EQ(echo.server().connections(), 0u);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_LT(cpu_s, 0.1);
  EXPECT_EQ(client.read_reply().status, 200u);
}

TEST_P(LimitsOver, keeps_hundreds_of_idle_connections) {
  EchoOver echo(GetParam());
  std::vector<Client> clients;
  clients.reserve(200);
  for (int i = 0; i < 200; ++i) clients.push_back(echo.connect());
  for (Client& client : clients) EXPECT_EQ(client.send(kGet).read_reply().status, 200u);
  EXPECT_EQ(echo.server().connections(), 200u);
  for (Client& client : clients) EXPECT_EQ(client.send(kGet).read_reply().status, 200u);
  clients.clear();
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
}

}  // namespace
}  // namespace kvasir::http
