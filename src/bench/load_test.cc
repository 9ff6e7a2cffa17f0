#include "bench/load.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <set>

#include "bench/testing_server.h"

namespace kvasir::bench {
namespace {

using Answer = TestingServer::Answer;
using Request = TestingServer::Request;

std::string chunk(const std::string& bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

// What a stream is made of; each test spoils something.
struct Stream {
  std::string id;
  std::vector<std::string> texts;
  int finish_reasons = 1;
  size_t completion_tokens = 0;
  bool done = true;
  std::string last_chunk = "0\r\n\r\n";
  std::string fields;
};

std::string event(const std::string& json) {
  return chunk("data: " + json + "\n\n");
}

std::string bytes_of(const Stream& stream) {
  std::string bytes = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n" + stream.fields +
                      "Transfer-Encoding: chunked\r\n\r\n";
  const auto choice = [&](const std::string& text, const std::string& reason) {
    return event(
        fmt::format(R"({{"id":"{}","choices":[{{"index":0,"text":"{}","finish_reason":{}}}]}})",
                    stream.id, text, reason));
  };
  for (const std::string& text : stream.texts) bytes += choice(text, "null");
  for (int i = 0; i < stream.finish_reasons; ++i) bytes += choice("", "\"length\"");
  bytes += event(fmt::format(R"({{"id":"{}","choices":[],"usage":{{"completion_tokens":{}}}}})",
                             stream.id, stream.completion_tokens));
  if (stream.done) bytes += event("[DONE]");
  return bytes + stream.last_chunk;
}

// As a correct server answers: the text follows from the prompt alone.
Stream good_stream(const Request& request) {
  static std::atomic<uint64_t> answers{0};
  const boost::json::object body = boost::json::parse(request.body()).as_object();
  Stream stream{.id = fmt::format("cmpl-{}", answers.fetch_add(1))};
  const boost::json::array& prompt = body.at("prompt").as_array();
  stream.completion_tokens = static_cast<size_t>(body.at("max_tokens").as_int64());
  for (size_t i = 0; i < stream.completion_tokens; ++i) {
    stream.texts.push_back(fmt::format("{} ", prompt[i % prompt.size()].as_int64()));
  }
  return stream;
}

Answer good_answer(const Request& request) {
  return {.bytes = bytes_of(good_stream(request))};
}

struct Outcomes {
  base::Status status;
  std::vector<boost::json::object> lines;

  const boost::json::value& at(std::string_view key) const { return lines.front().at(key); }
};

Outcomes run_load(const LoadOptions& options, bool cancelled = false) {
  Outcomes outcomes;
  outcomes.status = bench_load(
      options, {.on_line = [&](const boost::json::object& line) { outcomes.lines.push_back(line); },
                .on_progress = {},
                .cancelled = [&] { return cancelled; }});
  return outcomes;
}

LoadOptions small_options(const TestingServer& server) {
  return {.url = server.url(), .sequences = 4, .requests = 20, .tokens = 8, .generate = 6};
}

// A file of this test that goes with it.
class TemporaryFile {
 public:
  explicit TemporaryFile(const std::string& name)
      : path_(std::filesystem::temp_directory_path() /
              fmt::format("{}-{}", name, static_cast<const void*>(this))) {}
  ~TemporaryFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_; }

 private:
  std::filesystem::path path_;
};

TEST(Load, whole_streams_are_ok_and_counted) {
  const TestingServer server(good_answer);
  const Outcomes outcomes = run_load(small_options(server));
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  ASSERT_EQ(outcomes.lines.size(), 1U);
  EXPECT_EQ(outcomes.at("bench"), "load");
  EXPECT_EQ(outcomes.at("requests"), 20);
  EXPECT_EQ(outcomes.at("ok"), 20);
  EXPECT_EQ(outcomes.at("failed"), 0);
  EXPECT_GT(outcomes.at("tok_s").as_double(), outcomes.at("generated_tok_s").as_double());
  EXPECT_GE(outcomes.at("ttft_ms_p99").as_double(), outcomes.at("ttft_ms_p50").as_double());
  EXPECT_GT(outcomes.at("client_cpu_pct").as_double(), 0.0);
}

TEST(Load, keeps_as_many_streams_open_as_asked_and_connections_for_the_next) {
  const TestingServer server(good_answer);
  ASSERT_TRUE(run_load(small_options(server)).status.has_value());
  EXPECT_EQ(server.connections(), 1 + 4);  // the first one only looks
}

TEST(Load, a_kept_connection_that_the_server_closes_is_opened_again) {
  const TestingServer server([](const Request& request) {
    Answer answer = good_answer(request);
    answer.close = true;  // without having said so
    return answer;
  });
  const Outcomes outcomes = run_load(small_options(server));
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  EXPECT_EQ(outcomes.at("ok"), 20);
}

TEST(Load, what_is_wrong_with_a_stream_is_told_apart) {
  using Spoil = std::function<Answer(Stream)>;
  const std::vector<std::pair<std::string, Spoil>> cases = {
      {"no_done", [](Stream s) { return s.done = false, Answer{bytes_of(s)}; }},
      {"finish_reason", [](Stream s) { return s.finish_reasons = 2, Answer{bytes_of(s)}; }},
      {"token_count", [](Stream s) { return ++s.completion_tokens, Answer{bytes_of(s)}; }},
      {"wrong_id", [](Stream s) { return s.id = "cmpl-same", Answer{bytes_of(s)}; }},
      {"wrong_id", [](Stream s) { return s.id = "", Answer{bytes_of(s)}; }},
      {"malformed", [](Stream s) { return s.texts = {"\\"}, Answer{bytes_of(s)}; }},
      {"malformed", [](Stream s) { return s.last_chunk = "zz\r\n", Answer{bytes_of(s)}; }},
      {"malformed", [](Stream s) { return s.last_chunk += "more", Answer{bytes_of(s)}; }},
      {"malformed", [](const Stream&) { return Answer{"what?\r\n\r\n"}; }},
      {"cut_off", [](Stream s) { return s.last_chunk = "", Answer{bytes_of(s), true}; }},
      {"cut_off", [](const Stream&) { return Answer{"", true}; }},
      {"http_500",
       [](const Stream&) { return Answer{"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\n{}"}; }},
  };
  for (const auto& [name, spoil] : cases) {
    const TestingServer server([&](const Request& request) { return spoil(good_stream(request)); });
    LoadOptions options = small_options(server);
    options.requests = 2;
    const Outcomes outcomes = run_load(options);
    ASSERT_FALSE(outcomes.status.has_value()) << name;
    EXPECT_NE(outcomes.status.error().message.find(name), std::string::npos)
        << outcomes.status.error().message;
    EXPECT_TRUE(outcomes.at("failures").as_object().contains(name)) << name;
  }
}

TEST(Load, a_stream_that_hangs_times_out) {
  const TestingServer server([](const Request&) { return Answer{}; });
  LoadOptions options = small_options(server);
  options.timeout_s = 0.2;
  options.requests = 4;
  const Outcomes outcomes = run_load(options);
  EXPECT_FALSE(outcomes.status.has_value());
  EXPECT_EQ(outcomes.at("failures"), (boost::json::object{{"timeout", 4}}));
}

TEST(Load, refusals_with_429_are_no_failures) {
  const TestingServer server([](const Request& request) {
    if (boost::json::parse(request.body()).at("temperature") == 0.0) return good_answer(request);
    return Answer{"HTTP/1.1 429 Full\r\nContent-Length: 2\r\nRetry-After: 1\r\n\r\n{}"};
  });
  LoadOptions options = small_options(server);
  options.mixed = true;
  const Outcomes outcomes = run_load(options);
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  EXPECT_EQ(outcomes.at("ok"), 10);
  EXPECT_EQ(outcomes.at("refused_429"), 10);
}

TEST(Load, requests_arrive_at_a_rate_however_many_are_open) {
  std::atomic<int> requests{0};
  const TestingServer server([&](const Request&) {
    ++requests;
    return Answer{};
  });
  LoadOptions options = small_options(server);
  options.sequences = 1;
  options.requests = 30;
  options.rate = 300.0;
  options.duration_s = 1.5;
  const Outcomes outcomes = run_load(options);
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  EXPECT_EQ(requests, 30);
  EXPECT_EQ(outcomes.at("unfinished"), 30);
}

TEST(Load, a_duration_ends_the_test_and_open_streams_are_left) {
  const TestingServer server([](const Request& request) {
    const bool greedy = boost::json::parse(request.body()).at("temperature") == 0.0;
    return greedy ? good_answer(request) : Answer{};
  });
  LoadOptions options = small_options(server);
  options.mixed = true;
  options.requests = std::nullopt;
  options.duration_s = 0.3;
  const Outcomes outcomes = run_load(options);
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  EXPECT_EQ(outcomes.at("unfinished"), 4);
  EXPECT_LT(outcomes.at("wall_s").as_double(), 5.0);
}

TEST(Load, each_tenant_sends_its_key_and_has_a_line) {
  std::mutex mutex;
  std::set<std::string> keys;
  const TestingServer server([&](const Request& request) {
    const std::lock_guard lock(mutex);
    keys.emplace(request["Authorization"]);
    return good_answer(request);
  });
  LoadOptions options = small_options(server);
  options.api_keys = {"one", "two"};
  const Outcomes outcomes = run_load(options);
  ASSERT_TRUE(outcomes.status.has_value()) << outcomes.status.error().message;
  EXPECT_EQ(keys, (std::set<std::string>{"Bearer one", "Bearer two"}));
  ASSERT_EQ(outcomes.lines.size(), 3U);
  EXPECT_DOUBLE_EQ(outcomes.at("jain").as_double(), 1.0);
  const auto ok = [&](size_t line) { return outcomes.lines[line].at("ok").to_number<int>(); };
  EXPECT_EQ(ok(1) + ok(2), 20);
}

TEST(Load, nobody_listening_is_a_plain_error) {
  std::string url;
  {
    const TestingServer server(good_answer);
    url = server.url();
  }
  const Outcomes outcomes = run_load({.url = url});
  ASSERT_FALSE(outcomes.status.has_value());
  EXPECT_EQ(outcomes.status.error().kind, base::ErrorKind::kRuntime);
  EXPECT_NE(outcomes.status.error().message.find(url), std::string::npos);
}

TEST(Load, ctrl_c_ends_it) {
  const TestingServer server([](const Request&) { return Answer{}; });
  const Outcomes outcomes = run_load(small_options(server), /*cancelled=*/true);
  ASSERT_FALSE(outcomes.status.has_value());
  EXPECT_EQ(outcomes.status.error().message, "interrupted");
  EXPECT_TRUE(outcomes.lines.empty());
}

TEST(Load, options_that_contradict_each_other_are_bad_input) {
  for (const LoadOptions& options :
       {LoadOptions{.tokens = 8, .shared_prefix = 9}, LoadOptions{.api_keys = {"one"}, .flood = 2},
        LoadOptions{.url = "https://example.org"}}) {
    const base::Status status = bench_load(options, {});
    ASSERT_FALSE(status.has_value());
    EXPECT_EQ(status.error().kind, base::ErrorKind::kBadInput) << status.error().message;
  }
}

TEST(LoadVerify, the_same_streams_sent_one_by_one_have_the_same_text) {
  const TestingServer server(good_answer);
  const TemporaryFile file("kvasir-load-check");
  LoadOptions options = small_options(server);
  options.check_file = file.path();
  ASSERT_TRUE(run_load(options).status.has_value());
  LoadOptions verify{.url = server.url(), .verify_file = file.path()};
  const Outcomes all = run_load(verify);
  ASSERT_TRUE(all.status.has_value()) << all.status.error().message;
  EXPECT_EQ(all.at("same"), 20);
  verify.samples = 7;
  EXPECT_EQ(run_load(verify).at("requests"), 7);
}

TEST(LoadVerify, a_single_other_byte_is_an_error) {
  std::atomic<bool> spoilt{false};
  const TestingServer server([&](const Request& request) {
    Stream stream = good_stream(request);
    if (spoilt.exchange(false)) stream.texts.back() += "x";
    return Answer{bytes_of(stream)};
  });
  const TemporaryFile file("kvasir-load-check");
  LoadOptions options = small_options(server);
  options.check_file = file.path();
  ASSERT_TRUE(run_load(options).status.has_value());
  spoilt = true;
  const Outcomes outcomes = run_load({.url = server.url(), .verify_file = file.path()});
  ASSERT_FALSE(outcomes.status.has_value());
  EXPECT_NE(outcomes.status.error().message.find("1 of 20 streams differ"), std::string::npos)
      << outcomes.status.error().message;
  EXPECT_EQ(outcomes.at("different"), 1);
}

TEST(LoadVerify, only_what_was_written_by_a_check_is_read) {
  const TestingServer server(good_answer);
  const TemporaryFile file("kvasir-load-check");
  const std::string record = R"({"index":0,"seed":1,"request":{"prompt":[1],"max_tokens":1},)"
                             R"("text_sha256":"00","text":"a","tokens":[]})";
  for (const std::string& content : {std::string(), std::string("{}\n"), record}) {
    std::ofstream(file.path()) << content;
    const Outcomes outcomes = run_load({.url = server.url(), .verify_file = file.path()});
    ASSERT_FALSE(outcomes.status.has_value()) << content;
    EXPECT_EQ(outcomes.status.error().kind, base::ErrorKind::kBadInput);
  }
  const Outcomes missing = run_load({.url = server.url(), .verify_file = "/nowhere/at/all"});
  ASSERT_FALSE(missing.status.has_value());
  EXPECT_EQ(missing.status.error().kind, base::ErrorKind::kBadInput);
}

}  // namespace
}  // namespace kvasir::bench
