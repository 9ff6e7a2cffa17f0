#include "http/body_reader.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace kvasir::http {
namespace {

constexpr uint64_t kBytesMax = 100;

struct Outcome {
  unsigned status = 0;  // 0: more must come
  std::string body;
  size_t taken = 0;
};

// Feeds `text` in pieces of `step` bytes.
Outcome read(const RequestHead& head, std::string_view text, size_t step) {
  BodyReader reader(head, kBytesMax);
  Outcome outcome;
  while (outcome.taken < text.size() && !reader.complete()) {
    const auto taken = reader.take(text.substr(outcome.taken, step));
    if (!taken) return {.status = taken.error().status};
    outcome.taken += *taken;
  }
  if (!reader.complete()) return outcome;
  outcome.status = 200;
  outcome.body = reader.release();
  return outcome;
}

const RequestHead kChunked{.chunked = true};

TEST(BodyReader, leaves_what_follows_a_body_of_known_length) {
  for (const size_t step : {1u, 3u, 100u}) {
    const Outcome outcome = read({.body_bytes = 5}, "helloGET /", step);
    EXPECT_EQ(outcome.status, 200u);
    EXPECT_EQ(outcome.body, "hello");
    EXPECT_EQ(outcome.taken, 5u);
  }
}

TEST(BodyReader, puts_chunks_together_however_they_are_cut) {
  const std::string text =
      "5\r\nhello\r\n00a;name=\"a value\"\r\n, 10 bytes\r\n0;x\r\nTrailer: a\r\nB: c\r\n\r\n";
  const std::string following = "GET / HTTP/1.1";
  for (size_t step = 1; step <= text.size(); ++step) {
    const Outcome outcome = read(kChunked, text + following, step);
    EXPECT_EQ(outcome.status, 200u) << step;
    EXPECT_EQ(outcome.body, "hello, 10 bytes") << step;
    EXPECT_EQ(outcome.taken, text.size()) << step;
  }
  EXPECT_EQ(read(kChunked, "0\r\n\r\n", 1).status, 200u);
}

TEST(BodyReader, refuses_malformed_chunks) {
  const struct {
    std::string text;
    unsigned status;
  } cases[] = {
      {"\r\n", 400},
      {"g\r\n", 400},
      {"0x5\r\nhello", 400},
      {"-5\r\nhello", 400},
      {" 5\r\nhello", 400},
      {"5 \r\nhello", 400},
      {"5\nhello", 400},
      {"5\rhello", 400},
      {"5;a\nhello", 400},
      {"5\r\nhelloX", 400},
      {"5\r\nhello\n", 400},
      {"5\r\nhello\rX", 400},
      {"0\r\nA: b\n\r\n", 400},
      {"0\r\n\rX", 400},
      {"00000000000000005\r\nhello", 400},
      {"ffffffffffffffff\r\n", 413},
      {"10000000000000000\r\n", 413},
      {"65\r\n", 413},
      {"40\r\n" + std::string(64, 'a') + "\r\n25\r\n", 413},
      {"5;" + std::string(20'000, 'a'), 400},
      {"0\r\n" + std::string(20'000, 'a'), 400},
      {"5\r\nhello\r\n0\r\n", 0},
  };
  for (const auto& one : cases) {
    EXPECT_EQ(read(kChunked, one.text, 1).status, one.status) << one.text.substr(0, 40);
    EXPECT_EQ(read(kChunked, one.text, 100'000).status, one.status) << one.text.substr(0, 40);
  }
}

TEST(BodyReader, takes_a_body_of_exactly_the_limit) {
  const std::string body(kBytesMax, 'b');
  EXPECT_EQ(read(kChunked, "64\r\n" + body + "\r\n0\r\n\r\n", 7).body, body);
}

}  // namespace
}  // namespace kvasir::http
