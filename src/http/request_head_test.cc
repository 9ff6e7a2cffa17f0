#include "http/request_head.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace kvasir::http {
namespace {

// Feeds it byte by byte, as the network might.
std::expected<RequestHead, Refusal> read(const std::string& text, const Limits& limits = {}) {
  HeadScanner scanner;
  for (size_t size = 1; size <= text.size(); ++size) {
    const auto end = scanner.scan(std::string_view(text).substr(0, size), limits);
    if (!end) return std::unexpected(end.error());
    if (*end) return parse_head(std::string_view(text).substr(0, **end), limits);
  }
  return std::unexpected(Refusal{0, "not complete"});
}

unsigned status_of(const std::string& text, const Limits& limits = {}) {
  const auto head = read(text, limits);
  return head ? 200 : head.error().status;
}

TEST(RequestHead, reads_what_clients_send) {
  const auto head = read(
      "POST /v1/chat/completions?a=b HTTP/1.1\r\nHost: me\r\nX-Thing:  two words \r\n"
      "x-thing: again\r\nContent-Length: 12\r\nExpect: 100-Continue\r\n\r\n");
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->head.method, "POST");
  EXPECT_EQ(head->head.path, "/v1/chat/completions");
  EXPECT_EQ(head->head.query, "a=b");
  EXPECT_EQ(head->head.field("x-thing"), "two words");
  EXPECT_EQ(head->head.field("absent"), "");
  EXPECT_EQ(head->head.fields.size(), 5u);
  EXPECT_EQ(head->body_bytes, 12u);
  EXPECT_TRUE(head->expects_continue && head->keeps_alive && head->has_body());
  EXPECT_FALSE(head->chunked || head->http_1_0);
}

TEST(RequestHead, takes_the_host_of_an_absolute_target) {
  const auto head = read("GET HTTP://other:80/a?b HTTP/1.1\r\nHost: me\r\n\r\n");
  ASSERT_TRUE(head) << head.error().message;
  EXPECT_EQ(head->head.field("host"), "other:80");
  EXPECT_EQ(head->head.path, "/a");
  EXPECT_EQ(head->head.query, "b");
  const auto bare = read("GET http://other?b HTTP/1.1\r\nHost: me\r\n\r\n");
  ASSERT_TRUE(bare) << bare.error().message;
  EXPECT_EQ(bare->head.path, "/");
  EXPECT_EQ(bare->head.query, "b");
}

TEST(RequestHead, knows_which_connections_stay) {
  EXPECT_TRUE(read("GET / HTTP/1.1\r\nHost: a\r\n\r\n")->keeps_alive);
  EXPECT_FALSE(read("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")->keeps_alive);
  EXPECT_FALSE(read("GET / HTTP/1.0\r\n\r\n")->keeps_alive);
  EXPECT_TRUE(read("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")->keeps_alive);
}

TEST(RequestHead, ignores_upgrades_and_expectations_of_old_clients) {
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
            200u);
  EXPECT_EQ(status_of("GET / HTTP/1.0\r\nExpect: something\r\n\r\n"), 200u);
}

struct Case {
  const char* text;
  unsigned status;
};

TEST(RequestHead, refuses_what_could_be_read_in_two_ways) {
  const std::string start = "POST / HTTP/1.1\r\nHost: a\r\n";
  const Case cases[] = {
      {"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", 400},
      {"Content-Length: 5\r\nContent-Length: 6\r\n\r\n", 400},
      {"Content-Length: 5, 5\r\n\r\n", 400},
      {"Content-Length: +5\r\n\r\n", 400},
      {"Content-Length: -5\r\n\r\n", 400},
      {"Content-Length: 0x5\r\n\r\n", 400},
      {"Content-Length: 5 5\r\n\r\n", 400},
      {"Content-Length:\r\n\r\n", 400},
      {"Content-Length: 99999999999999999999\r\n\r\n", 400},
      {"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", 400},
      {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"Transfer-Encoding: gzip, chunked\r\n\r\n", 400},
      {"Transfer-Encoding: chunked, identity\r\n\r\n", 400},
      {"Transfer-Encoding: identity\r\n\r\n", 400},
      {"Transfer-Encoding: xchunked\r\n\r\n", 400},
      {"Transfer-Encoding:\r\n\r\n", 400},
      {"X: a\r\n b\r\n\r\n", 400},
      {"X: a\r\n\tb\r\n\r\n", 400},
      {"X: a\n\r\n", 400},
      {"X: a\r\n\n", 400},
      {"X: a\rb\r\n\r\n", 400},
      {"X : a\r\n\r\n", 400},
      {" X: a\r\n\r\n", 400},
      {": a\r\n\r\n", 400},
      {"X\r\n\r\n", 400},
      {"X: a\x01\r\n\r\n", 400},
      {"X: a\x7f\r\n\r\n", 400},
      {"Host: b\r\n\r\n", 400},
      {"Content-Encoding: gzip\r\n\r\n", 415},
      {"Expect: tea\r\n\r\n", 417},
      {"Transfer-Encoding: Chunked\r\n\r\n", 200},
      {"Content-Encoding: identity\r\n\r\n", 200},
      {"X:\r\n\r\n", 200},
  };
  for (const Case& one : cases) {
    EXPECT_EQ(status_of(start + one.text), one.status) << one.text;
  }
}

TEST(RequestHead, refuses_bad_request_lines) {
  const Case cases[] = {
      {"GET / HTTP/1.1\r\n\r\n", 400},
      {"\r\nGET / HTTP/1.0\r\n\r\n", 400},
      {" GET / HTTP/1.0\r\n\r\n", 400},
      {"GET  / HTTP/1.0\r\n\r\n", 400},
      {"GET /\r\n\r\n", 400},
      {"GET / HTTP/1.0 \r\n\r\n", 400},
      {"GET / http/1.0\r\n\r\n", 400},
      {"GET / a HTTP/1.0\r\n\r\n", 400},
      {"G@T / HTTP/1.0\r\n\r\n", 400},
      {"GET path HTTP/1.0\r\n\r\n", 400},
      {"GET * HTTP/1.0\r\n\r\n", 400},
      {"GET /\xc3\xa4 HTTP/1.0\r\n\r\n", 400},
      {"GET / HTTP/1.0\n\n", 400},
      {"GET / HTTP/2.0\r\n\r\n", 505},
      {"PRI * HTTP/2.0\r\n\r\n", 505},
      {"\x16\x03\x01", 400},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400},
      {"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 405},
      {"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405},
      {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200},
      {"GET / HTTP/1.0\r\n\r\n", 200},
  };
  for (const Case& one : cases) EXPECT_EQ(status_of(one.text), one.status) << one.text;
}

TEST(RequestHead, refuses_a_null_byte) {
  EXPECT_EQ(status_of(std::string("GET /\0 HTTP/1.0\r\n\r\n", 19)), 400u);
}

TEST(RequestHead, limits_target_fields_and_bytes) {
  const Limits limits{.head_bytes_max = 4000, .fields_max = 10, .target_bytes_max = 1000};
  const auto with_target = [](size_t bytes) {
    return "GET /" + std::string(bytes - 1, 'a') + " HTTP/1.0\r\n\r\n";
  };
  EXPECT_EQ(status_of(with_target(1000), limits), 200u);
  EXPECT_EQ(status_of(with_target(1001), limits), 414u);
  // Long before its end.
  EXPECT_EQ(status_of("GET /" + std::string(1200, 'a'), limits), 414u);

  const auto with_fields = [](int count) {
    std::string text = "GET / HTTP/1.0\r\n";
    for (int i = 0; i < count; ++i) text += "X: a\r\n";
    return text + "\r\n";
  };
  EXPECT_EQ(status_of(with_fields(10), limits), 200u);
  EXPECT_EQ(status_of(with_fields(11), limits), 431u);

  const auto with_bytes = [](size_t bytes) {
    const std::string start = "GET / HTTP/1.0\r\nX: ";
    return start + std::string(bytes - start.size() - 4, 'a') + "\r\n\r\n";
  };
  EXPECT_EQ(status_of(with_bytes(4000), limits), 200u);
  EXPECT_EQ(status_of(with_bytes(4001), limits), 431u);
}

}  // namespace
}  // namespace kvasir::http
