#include "bench/load_stream.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "base/rng.h"

namespace kvasir::bench {
namespace {

using Events = std::vector<std::string>;

struct Split {
  Events events;
  bool well_formed = true;
  bool at_boundary = false;
};

// Splits bytes that come in pieces of the given sizes, the last one as large as it takes.
Split split(std::string_view bytes, const std::vector<size_t>& sizes = {}) {
  Split result;
  SseSplitter splitter;
  const auto push = [&](std::string_view piece) {
    result.well_formed =
        splitter.push(piece, [&](std::string_view data) { result.events.emplace_back(data); });
  };
  for (const size_t size : sizes) {
    push(bytes.substr(0, size));
    bytes.remove_prefix(std::min(size, bytes.size()));
  }
  push(bytes);
  result.at_boundary = splitter.at_boundary();
  return result;
}

TEST(SseSplitter, an_event_is_its_data_up_to_an_empty_line) {
  const Split result = split("data: one\n\ndata: two\r\n\r\ndata:three\n\n");
  EXPECT_EQ(result.events, (Events{"one", "two", "three"}));
  EXPECT_TRUE(result.well_formed);
  EXPECT_TRUE(result.at_boundary);
}

TEST(SseSplitter, lines_of_data_are_joined) {
  EXPECT_EQ(split("data: a\ndata: b\n\n").events, (Events{"a\nb"}));
}

TEST(SseSplitter, comments_and_other_fields_say_nothing) {
  const Split result = split(": keep-alive\n\nevent: x\nid: 7\nretry: 10\ndata: a\n\n: ping\n\n");
  EXPECT_EQ(result.events, (Events{"a"}));
  EXPECT_TRUE(result.at_boundary);
}

TEST(SseSplitter, what_is_no_field_is_malformed) {
  for (const char* bytes :
       {"hello\n\n", "{\"a\":1}\n\n", "Data: a\n\n", "data\n\n", " data: a\n\n"}) {
    const Split result = split(bytes);
    EXPECT_FALSE(result.well_formed) << bytes;
    EXPECT_FALSE(result.at_boundary) << bytes;
    EXPECT_TRUE(result.events.empty()) << bytes;
  }
}

TEST(SseSplitter, an_event_without_its_empty_line_is_not_complete) {
  for (const char* bytes : {"data: a", "data: a\n", "data: a\n\ndata: b\n", ": comm"}) {
    EXPECT_FALSE(split(bytes).at_boundary) << bytes;
  }
}

TEST(SseSplitter, an_endless_event_is_malformed) {
  EXPECT_FALSE(split("data: " + std::string((size_t{1} << 20) + 1, 'x')).well_formed);
}

TEST(SseSplitter, any_cut_gives_the_same_events) {
  const std::string bytes = "data: one\r\n\r\n: hm\n\ndata: t\ndata: wo\n\ndata: [DONE]\n\n";
  const Split whole = split(bytes);
  constexpr uint64_t kSeed = 20261122;
  for (uint64_t round = 0; round < 300; ++round) {
    std::vector<size_t> sizes(20);
    for (uint64_t i = 0; i < sizes.size(); ++i) {
      sizes[i] = base::random_bits({.seed = kSeed, .choice = round}, i)[0] % 6;
    }
    const Split cut = split(bytes, sizes);
    ASSERT_EQ(cut.events, whole.events) << "seed " << kSeed << " round " << round;
    ASSERT_TRUE(cut.at_boundary);
  }
}

std::string event(const std::string& choice, const std::string& more = "") {
  return fmt::format(R"(data: {{"id":"cmpl-1","choices":[{{"index":0,{}}}]{}}})", choice, more) +
         "\n\n";
}

std::string piece(const std::string& text) {
  return event(fmt::format(R"("text":"{}","finish_reason":null)", text));
}

const std::string kFinish = event(R"("text":"","finish_reason":"length")");
const std::string kUsage =
    "data: {\"id\":\"cmpl-1\",\"choices\":[],\"usage\":{\"completion_tokens\":2}}\n\n";
const std::string kDone = "data: [DONE]\n\n";

struct Read {
  Outcome outcome{};
  StreamAnswer answer;
};

Read read(const std::string& bytes) {
  AnswerReader reader(2);
  reader.push(bytes, 1000);
  const Outcome outcome = reader.verdict();
  return {outcome, reader.take_answer()};
}

TEST(AnswerReader, a_whole_stream_is_ok) {
  const Read result = read(piece("Hel") + piece("lo") + kFinish + kUsage + kDone);
  EXPECT_EQ(outcome_name(result.outcome), "ok");
  EXPECT_EQ(result.answer.text, "Hello");
  EXPECT_EQ(result.answer.id, "cmpl-1");
  EXPECT_EQ(result.answer.pieces, 2U);
}

TEST(AnswerReader, the_last_text_may_come_with_the_finish_reason_and_the_usage) {
  const Read result =
      read(piece("a") +
           event(R"("text":"b","finish_reason":"length")", R"(,"usage":{"completion_tokens":2})") +
           kDone);
  EXPECT_EQ(outcome_name(result.outcome), "ok");
  EXPECT_EQ(result.answer.text, "ab");
}

TEST(AnswerReader, every_departure_is_told_apart) {
  const std::string other = "data: {\"id\":\"cmpl-2\",\"choices\":[]}\n\n";
  const std::string choice1 = "data: {\"id\":\"cmpl-1\",\"choices\":[{\"index\":1}]}\n\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "no_done"},
      {piece("a") + kFinish + kUsage, "no_done"},
      {piece("a") + kFinish + kUsage + "data: [DONE]\n", "no_done"},
      {piece("a") + kUsage + kDone, "finish_reason"},
      {piece("a") + kFinish + kFinish + kUsage + kDone, "finish_reason"},
      {piece("a") + kFinish + piece("b") + kUsage + kDone, "finish_reason"},
      {piece("a") + kFinish + kDone, "token_count"},
      {piece("a") + kFinish + event("\"text\":\"\"", ",\"usage\":{\"completion_tokens\":3}") +
           kDone,
       "token_count"},
      {piece("a") + other + kFinish + kUsage + kDone, "wrong_id"},
      {"data: {\"choices\":[]}\n\n" + kDone, "wrong_id"},
      {"data: {\"id\":7,\"choices\":[]}\n\n" + kDone, "wrong_id"},
      {piece("a") + "data: {\"error\":{\"message\":\"x\"}}\n\n" + kDone, "error_event"},
      {piece("a") + kFinish + kUsage + kDone + piece("b"), "malformed"},
      {piece("a") + kFinish + kUsage + kDone + kDone, "malformed"},
      {"data: {\"id\":\"cmpl-1\",\n\n", "malformed"},
      {"data: [1]\n\n", "malformed"},
      {"data: {\"id\":\"cmpl-1\"}\n\n", "malformed"},
      {"data: {\"id\":\"cmpl-1\",\"choices\":[7]}\n\n", "malformed"},
      {choice1, "malformed"},
      {event("\"text\":7"), "malformed"},
      {event("\"token_ids\":[\"a\"]"), "malformed"},
      {event("\"text\":\"\"", ",\"usage\":{}"), "malformed"},
      {"<html>\n\n", "malformed"}};
  for (const auto& [bytes, expected] : cases) {
    EXPECT_EQ(outcome_name(read(bytes).outcome), expected) << bytes;
  }
}

TEST(AnswerReader, the_event_that_was_wrong_is_kept) {
  const Read result = read(piece("a") + "data: {\"error\":{\"message\":\"full\"}}\n\n" + kDone);
  EXPECT_EQ(result.answer.fault, R"({"error":{"message":"full"}})");
}

TEST(AnswerReader, times_are_of_the_pieces_with_text_or_tokens) {
  AnswerReader reader(2);
  reader.push(event("\"text\":\"\""), 500);
  reader.push(piece("a"), 1000);
  reader.push(event(R"("text":"","token_ids":[5])"), 4000);
  reader.push(piece("b") + piece("c"), 4500);
  reader.push(kFinish, 9000);
  const StreamAnswer answer = reader.take_answer();
  EXPECT_EQ(answer.first_us, 1000U);
  EXPECT_EQ(answer.gaps_ms, (std::vector<float>{3.0F, 0.5F, 0.0F}));
  EXPECT_EQ(answer.tokens, (std::vector<TokenId>{5}));
}

}  // namespace
}  // namespace kvasir::bench
