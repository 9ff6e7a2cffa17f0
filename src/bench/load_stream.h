// A streamed answer, read as strictly as a test can: server-sent events, and what /v1/completions
// may say in them.
//
// Thread: one owner. Allocates: text and gaps of the answer.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"

namespace kvasir::bench {

// What became of a stream.
enum class Outcome : uint8_t {
  kOk,
  kRefused,     // 429
  kUnfinished,  // left by us, when the time of the test was over
  kConnect,     // no connection
  kTimeout,
  kStatus,        // another HTTP status than 200
  kCutOff,        // the connection ended before the answer
  kMalformed,     // not HTTP, not server-sent events, not JSON
  kErrorEvent,    // the server says that it failed
  kWrongId,       // no id, or that of another stream
  kFinishReason,  // none, several, or text after it
  kNoDone,        // ended without [DONE]
  kTokenCount,    // not as many tokens as asked for
};
constexpr size_t kOutcomes = 13;
std::string_view outcome_name(Outcome outcome);

// Cuts a stream of bytes into events.
class SseSplitter {
 public:
  // Calls on_data with the data of every event that these bytes complete. false: a line that may
  // not stand there, or an event longer than 1 MiB; nothing more is said then.
  bool push(std::string_view bytes, const std::function<void(std::string_view)>& on_data);
  // Nothing of an event was begun that has not been completed.
  bool at_boundary() const { return !broken_ && line_.empty() && !has_data_; }

 private:
  bool take_line(std::string_view line, const std::function<void(std::string_view)>& on_data);

  std::string line_;  // begun
  std::string data_;
  bool has_data_ = false;
  bool broken_ = false;
};

// What a stream said.
struct StreamAnswer {
  std::string id;
  std::string text;
  std::vector<TokenId> tokens;  // where the server tells them
  uint32_t pieces = 0;          // events with text or tokens
  std::optional<uint64_t> first_us;
  uint64_t last_us = 0;
  std::vector<float> gaps_ms;  // between pieces
  std::string fault;           // the beginning of the event that was wrong
};

class AnswerReader {
 public:
  explicit AnswerReader(uint32_t tokens_wanted) : tokens_wanted_(tokens_wanted) {}

  // Some bytes of the body, which came at `now_us`.
  void push(std::string_view bytes, uint64_t now_us);
  // Once the body has ended.
  Outcome verdict() const;
  StreamAnswer take_answer() { return std::move(answer_); }

 private:
  void take_event(std::string_view data, uint64_t now_us);
  void take_id(const boost::json::object& event);
  void take_choices(const boost::json::object& event, uint64_t now_us);
  void take_choice(const boost::json::object& choice, uint64_t now_us);
  void take_usage(const boost::json::object& event);
  void fail(Outcome outcome);

  uint32_t tokens_wanted_;
  SseSplitter splitter_;
  StreamAnswer answer_;
  uint32_t finish_reasons_ = 0;
  std::optional<int64_t> completion_tokens_;
  bool done_ = false;
  std::optional<Outcome> fault_;  // the first
};

}  // namespace kvasir::bench
