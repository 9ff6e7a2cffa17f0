#include "http/server.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "http/testing_client.h"

namespace kvasir::http {
namespace {

using testing::Client;
using testing::EchoOver;
using testing::EchoServer;
using testing::eventually;
using ::testing::MatchesRegex;
using testing::post;
using testing::Reply;
using ::testing::StartsWith;
using testing::Wire;

const std::string kGet = testing::get("/a");

class ServerOver : public ::testing::TestWithParam<Wire> {};
INSTANTIATE_TEST_SUITE_P(Wires, ServerOver, ::testing::Values(Wire::kPlain, Wire::kTls),
                         testing::wire_name);

TEST_P(ServerOver, serves_one_request_after_another_on_a_connection) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  for (const std::string body : {"one", "", "three"}) {
    const Reply reply = client.send(post("/b", body)).read_reply();
    EXPECT_EQ(reply.status, 200u);
    EXPECT_EQ(reply.body, "POST /b " + body);
    EXPECT_EQ(reply.field("Content-Type"), "application/json");
    EXPECT_EQ(reply.field("Server"), "kvasir");
    EXPECT_EQ(reply.field("Connection"), "");
    EXPECT_THAT(reply.field("Date"), MatchesRegex("[MTWFS]..,.*20.*:.*:.* GMT"));
    EXPECT_THAT(reply.field("x-request-id"), MatchesRegex("req-[0-9a-f]+"));
    EXPECT_EQ(reply.field("x-request-id").size(), 28u);
  }
}

TEST_P(ServerOver, answers_pipelined_requests_in_order) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  std::string requests;
  for (int i = 0; i < 300; ++i) {
    requests += post(fmt::format("/{}", i), std::string(static_cast<size_t>(i), 'x'));
  }
  client.send(requests);
  for (int i = 0; i < 300; ++i) {
    ASSERT_EQ(client.read_reply().body,
              fmt::format("POST /{} {}", i, std::string(static_cast<size_t>(i), 'x')));
  }
}

TEST(Server, keeps_what_comes_behind_a_request_that_is_being_answered) {
  EchoServer echo;
  Client client = echo.connect();
  client.send(post("/open", "first"));
  const auto first = echo.take();
  // More than the connection reads ahead.
  std::thread sender([&] {
    for (int i = 0; i < 10; ++i) client.send(post("/b", std::string(50'000, 'b')));
  });
  EXPECT_EQ(first->request().body, "first");
  first->respond({.body = "done"});
  EXPECT_EQ(client.read_reply().body, "done");
  for (int i = 0; i < 10; ++i) EXPECT_EQ(client.read_reply().body.size(), 50'008u);
  sender.join();
}

TEST_P(ServerOver, reads_requests_that_come_byte_by_byte) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  const std::string request =
      "POST /c HTTP/1.1\r\nHost: me\r\nTransfer-Encoding: chunked\r\n\r\n"
      "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\n\r\n";
  for (const char byte : request) client.send(std::string_view(&byte, 1));
  EXPECT_EQ(client.read_reply().body, "POST /c abcdefg");
  EXPECT_EQ(client.send("\r\n" + kGet).read_reply().body, "GET /a ");
}

TEST_P(ServerOver, sends_no_body_to_head) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  const Reply reply = client.send("HEAD /a HTTP/1.1\r\nHost: me\r\n\r\n").read_head();
  EXPECT_EQ(reply.field("Content-Length"), "8");
  EXPECT_EQ(client.send(kGet).read_reply().body, "GET /a ");
}

TEST_P(ServerOver, closes_when_the_client_asks_for_it_or_speaks_the_old_version) {
  EchoOver echo(GetParam());
  const struct {
    std::string request;
    std::string connection;  // as the answer says
  } cases[] = {
      {"GET /a HTTP/1.1\r\nHost: me\r\nConnection: close\r\n\r\n", "close"},
      {"GET /a HTTP/1.0\r\n\r\n", "close"},
  };
  for (const auto& one : cases) {
    Client client = echo.connect();
    const Reply reply = client.send(one.request).read_reply();
    EXPECT_EQ(reply.field("Connection"), one.connection) << one.request;
    EXPECT_TRUE(client.closed()) << one.request;
    EXPECT_EQ(client.told_end(), GetParam() == Wire::kTls) << one.request;
  }
  Client client = echo.connect();
  const std::string asks = "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
  EXPECT_EQ(client.send(asks).read_reply().field("Connection"), "keep-alive");
  EXPECT_EQ(client.send(asks).read_reply().status, 200u);
}

TEST_P(ServerOver, answers_a_client_that_has_stopped_sending) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  client.send("GET /refused HTTP/1.1\r\nHost: me\r\n\r\n").send_end();
  EXPECT_EQ(client.read_reply().status, 404u);
  EXPECT_TRUE(client.closed());
  EXPECT_EQ(client.told_end(), GetParam() == Wire::kTls);
}

TEST(Server, repeats_wellformed_request_ids_only) {
  EchoServer echo;
  Client client = echo.connect();
  const auto id_for = [&](const std::string& id) {
    return client.send("GET /a HTTP/1.1\r\nHost: me\r\nX-Request-Id: " + id + "\r\n\r\n")
        .read_reply()
        .field("x-request-id");
  };
  EXPECT_EQ(id_for("My-id_1.2"), "My-id_1.2");
  EXPECT_EQ(id_for(std::string(128, 'i')), std::string(128, 'i'));
  for (const std::string& bad : {std::string(129, 'i'), std::string("a b"), std::string("a\"b"),
                                 std::string("\xc3\xa4"), std::string()}) {
    EXPECT_THAT(id_for(bad), StartsWith("req-")) << bad;
  }
  EXPECT_NE(id_for(""), id_for(""));
}

TEST(Server, lets_no_field_of_an_answer_contain_a_line_end) {
  EchoServer echo;
  Client client = echo.connect();
  client.send(post("/open", ""));
  echo.take()->respond({.status = 204, .fields = {{"X-Echo", "a\r\nSet-Cookie: b"}}});
  const Reply reply = client.read_head();
  EXPECT_EQ(reply.field("X-Echo"), "a  Set-Cookie: b");
  EXPECT_EQ(reply.field("Content-Length"), "");  // 204 has no body
  EXPECT_EQ(client.send(kGet).read_reply().status, 200u);
}

// Each of these is answered with an error object, and the connection closes; the next one works.
TEST_P(ServerOver, refuses_malformed_requests_and_goes_on) {
  const Limits limits{.head_bytes_max = 2000, .target_bytes_max = 1000, .body_bytes_max = 100};
  EchoOver echo(GetParam(), limits);
  const std::string start = "POST /b HTTP/1.1\r\nHost: me\r\n";
  const std::string chunked = start + "Transfer-Encoding: chunked\r\n\r\n";
  const struct {
    std::string request;
    unsigned status;
  } cases[] = {
      {"nonsense\r\n\r\n", 400},
      {"\x16\x03\x01\x02", 400},
      {start + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400},
      {start + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
      {start + "X: a\r\n folded\r\n\r\n", 400},
      {start + "X : a\r\n\r\n", 400},
      {start + "X: a\n\n", 400},
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {chunked + "5\nhello", 400},
      {chunked + "5\r\nhello!\r\n", 400},
      {chunked + "65\r\n", 413},
      {start + "Content-Length: 101\r\n\r\n", 413},
      {start + "Content-Length: 101\r\n\r\n" + std::string(500'000, 'x'), 413},
      {"GET /" + std::string(1000, 'a') + " HTTP/1.1\r\nHost: me\r\n\r\n", 414},
      {start + "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", 415},
      {start + "Expect: tea\r\nContent-Length: 5\r\n\r\nhello", 417},
      {start + "X: " + std::string(3000, 'x') + "\r\n\r\n", 431},
      {"TRACE / HTTP/1.1\r\nHost: me\r\n\r\n", 405},
      {"GET / HTTP/3.0\r\nHost: me\r\n\r\n", 505},
  };
  for (const auto& one : cases) {
    const std::string name = one.request.substr(0, 80);
    Client client = echo.connect();
    const Reply reply = client.send(one.request).read_reply();
    EXPECT_EQ(reply.status, one.status) << name;
    EXPECT_THAT(reply.body, MatchesRegex(R"(\{"error":\{"message":"[^"]+","type":"[a-z_]+",)"
                                         R"("param":null,"code":null\}\})"))
        << name;
    EXPECT_EQ(reply.field("Connection"), "close") << name;
    EXPECT_THAT(reply.field("x-request-id"), StartsWith("req-")) << name;
    EXPECT_TRUE(client.closed()) << name;
    EXPECT_EQ(echo.connect().send(kGet).read_reply().body, "GET /a ") << name;
  }
}

TEST_P(ServerOver, asks_the_gate_before_it_reads_a_body) {
  EchoOver echo(GetParam());
  Client client = echo.connect();
  EXPECT_EQ(client.send("GET /refused HTTP/1.1\r\nHost: me\r\n\r\n").read_reply().status, 404u);
  EXPECT_EQ(client.send(kGet).read_reply().status, 200u);
  client.send("POST /refused HTTP/1.1\r\nHost: me\r\nContent-Length: 10\r\n\r\n");
  EXPECT_EQ(client.read_reply().status, 404u);
  EXPECT_TRUE(client.closed());
}

TEST_P(ServerOver, honours_expect_continue) {
  EchoOver echo(GetParam());
  const auto head = [](const std::string& path) {
    return "POST " + path +
           " HTTP/1.1\r\nHost: me\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
  };
  Client client = echo.connect();
  EXPECT_EQ(client.send(head("/b")).read_head().status, 100u);
  EXPECT_EQ(client.send("body").read_reply().body, "POST /b body");
  // Nobody waits to be asked for a body that has been sent already.
  EXPECT_EQ(client.send(head("/b") + "body").read_reply().body, "POST /b body");
  EXPECT_EQ(client.send(head("/refused")).read_reply().status, 404u);
  EXPECT_TRUE(client.closed());
}

TEST(Server, marks_what_comes_in_by_a_listener_for_operators) {
  EchoServer echo({}, {{}, {.admin = true}});
  Client user;
  user.connect(echo.server().ports()[0]).send(post("/open", ""));
  EXPECT_FALSE(echo.take()->request().caller.admin);
  Client operator_client;
  operator_client.connect(echo.server().ports()[1]).send(post("/open", ""));
  const auto exchange = echo.take();
  EXPECT_TRUE(exchange->request().caller.admin);
  EXPECT_TRUE(exchange->request().head.admin_listener);
}

TEST(Server, says_which_address_it_can_not_have) {
  EchoServer echo;
  const auto start = [](const ListenOptions& listen) {
    return Server::start({.listeners = {listen}}, {}, {});
  };
  const auto taken = start({.port = echo.port()});
  ASSERT_FALSE(taken);
  EXPECT_EQ(
      taken.error().message,
      fmt::format("can not listen on 127.0.0.1 port {}: Address already in use", echo.port()));
  const auto foreign = start({.address = "192.0.2.1"});
  ASSERT_FALSE(foreign);
  EXPECT_THAT(foreign.error().message, StartsWith("can not listen on 192.0.2.1 port 0: "));
  const auto empty = start({.address = ""});
  ASSERT_FALSE(empty);
  EXPECT_EQ(empty.error().kind, base::ErrorKind::kBadInput);
}

TEST_P(ServerOver, stops_with_exchanges_open) {
  EchoOver echo(GetParam());
  std::vector<Client> clients;
  std::vector<std::shared_ptr<Exchange>> exchanges;
  std::atomic<int> gone = 0;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(echo.connect());
    clients.back().send(post("/open", ""));
    exchanges.push_back(echo.take());
    exchanges.back()->on_gone([&gone, exchange = exchanges.back()] { ++gone; });
    if (i % 2 == 0) exchanges.back()->begin_stream("text/event-stream");
  }
  echo.server().stop();
  EXPECT_EQ(gone, 10);
  EXPECT_EQ(echo.server().connections(), 0u);
  for (Client& client : clients) {
    client.read_to_end();
    EXPECT_FALSE(client.told_end());  // there should have been more
  }
  // Calls that come too late do no harm, and keep nothing alive.
  EXPECT_FALSE(echo.server().post([] {}));
  for (size_t i = 0; i < exchanges.size(); ++i) {
    exchanges[i]->on_gone([exchange = exchanges[i]] { FAIL(); });
    if (i % 2 == 0) {
      exchanges[i]->write("late");
      exchanges[i]->end_stream();
    } else {
      exchanges[i]->respond({});
    }
    EXPECT_EQ(exchanges[i].use_count(), 1);
  }
}

TEST_P(ServerOver, drains_after_it_has_stopped_accepting) {
  EchoOver echo(GetParam());
  Client idle = echo.connect();
  ASSERT_EQ(idle.send(kGet).read_reply().status, 200u);
  Client busy = echo.connect();
  busy.send(post("/open", ""));
  const auto exchange = echo.take();
  echo.server().stop_accepting();
  EXPECT_TRUE(idle.closed());
  EXPECT_EQ(idle.told_end(), GetParam() == Wire::kTls);
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 1; }));
  EXPECT_FALSE(Client().try_connect(echo.port()));
  exchange->respond({.body = "whole"});
  const Reply reply = busy.read_reply();
  EXPECT_EQ(reply.body, "whole");
  EXPECT_EQ(reply.field("Connection"), "close");
  EXPECT_TRUE(busy.closed());
  busy.hang_up();
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
}

TEST(Server, runs_what_is_posted_on_its_own_thread) {
  EchoServer echo;
  std::atomic<bool> ran = false;
  std::thread::id where;
  ASSERT_TRUE(echo.server().post([&] {
    where = std::this_thread::get_id();
    ran = true;
  }));
  ASSERT_TRUE(eventually([&] { return ran.load(); }));
  EXPECT_NE(where, std::this_thread::get_id());
}

}  // namespace
}  // namespace kvasir::http
