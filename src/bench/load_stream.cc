#include "bench/load_stream.h"

#include <algorithm>
#include <array>

namespace kvasir::bench {
namespace {

constexpr size_t kEventBytesMax = size_t{1} << 20;
constexpr size_t kFaultBytesMax = 200;

// The member if it is there and not null.
const boost::json::value* find(const boost::json::object& object, std::string_view name) {
  const boost::json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

}  // namespace

std::string_view outcome_name(Outcome outcome) {
  constexpr std::array<std::string_view, kOutcomes> kNames = {
      "ok",        "refused_429", "unfinished", "connect",       "timeout", "status",     "cut_off",
      "malformed", "error_event", "wrong_id",   "finish_reason", "no_done", "token_count"};
  return kNames[static_cast<size_t>(outcome)];
}

bool SseSplitter::push(std::string_view bytes,
                       const std::function<void(std::string_view)>& on_data) {
  while (!bytes.empty() && !broken_) {
    const size_t end = bytes.find('\n');
    line_ += bytes.substr(0, end);
    if (line_.size() + data_.size() > kEventBytesMax) broken_ = true;
    if (end == std::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    std::string_view line = line_;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!broken_) broken_ = !take_line(line, on_data);
    line_.clear();
  }
  return !broken_;
}

// https://html.spec.whatwg.org/multipage/server-sent-events.html, but unknown fields are mistakes.
bool SseSplitter::take_line(std::string_view line,
                            const std::function<void(std::string_view)>& on_data) {
  if (line.empty()) {
    if (has_data_) on_data(data_);
    data_.clear();
    has_data_ = false;
    return true;
  }
  if (line.starts_with(':')) return true;
  const size_t colon = line.find(':');
  const std::string_view name = line.substr(0, colon);
  if (name == "event" || name == "id" || name == "retry") return true;
  if (name != "data" || colon == std::string_view::npos) return false;
  std::string_view value = line.substr(colon + 1);
  if (value.starts_with(' ')) value.remove_prefix(1);
  if (has_data_) data_ += '\n';
  data_ += value;
  has_data_ = true;
  return true;
}

void AnswerReader::push(std::string_view bytes, uint64_t now_us) {
  const bool well_formed = splitter_.push(bytes, [&](std::string_view data) {
    if (fault_) return;
    take_event(data, now_us);
    if (fault_) answer_.fault = data.substr(0, kFaultBytesMax);
  });
  if (!well_formed) fail(Outcome::kMalformed);
}

Outcome AnswerReader::verdict() const {
  if (fault_) return *fault_;
  if (!splitter_.at_boundary() || !done_) return Outcome::kNoDone;
  if (finish_reasons_ != 1) return Outcome::kFinishReason;
  if (completion_tokens_ != int64_t{tokens_wanted_}) return Outcome::kTokenCount;
  return Outcome::kOk;
}

void AnswerReader::fail(Outcome outcome) {
  if (!fault_) fault_ = outcome;
}

void AnswerReader::take_event(std::string_view data, uint64_t now_us) {
  if (done_) return fail(Outcome::kMalformed);
  if (data == "[DONE]") {
    done_ = true;
    return;
  }
  std::array<unsigned char, 4096> memory;
  boost::json::monotonic_resource resource(memory.data(), memory.size());
  boost::system::error_code error;
  const boost::json::value event = boost::json::parse(data, error, &resource);
  const boost::json::object* object = error ? nullptr : event.if_object();
  if (object == nullptr) return fail(Outcome::kMalformed);
  if (find(*object, "error") != nullptr) return fail(Outcome::kErrorEvent);
  take_id(*object);
  take_choices(*object, now_us);
  take_usage(*object);
}

void AnswerReader::take_id(const boost::json::object& event) {
  const boost::json::value* id = find(event, "id");
  const boost::json::string* text = id == nullptr ? nullptr : id->if_string();
  if (text == nullptr || text->empty()) return fail(Outcome::kWrongId);
  if (answer_.id.empty()) answer_.id = *text;
  if (std::string_view(*text) != answer_.id) fail(Outcome::kWrongId);
}

void AnswerReader::take_choices(const boost::json::object& event, uint64_t now_us) {
  const boost::json::value* choices = find(event, "choices");
  const boost::json::array* list = choices == nullptr ? nullptr : choices->if_array();
  if (list == nullptr) return fail(Outcome::kMalformed);
  for (const boost::json::value& choice : *list) {
    if (!choice.is_object()) return fail(Outcome::kMalformed);
    take_choice(choice.get_object(), now_us);
  }
}

void AnswerReader::take_choice(const boost::json::object& choice, uint64_t now_us) {
  const boost::json::value* index = find(choice, "index");
  if (index == nullptr || !index->is_int64() || index->get_int64() != 0) {
    return fail(Outcome::kMalformed);
  }
  const boost::json::value* text = find(choice, "text");
  const boost::json::value* tokens = find(choice, "token_ids");
  if (text != nullptr && !text->is_string()) return fail(Outcome::kMalformed);
  if (tokens != nullptr && !tokens->is_array()) return fail(Outcome::kMalformed);
  const bool has_text = text != nullptr && !text->get_string().empty();
  const bool has_tokens = tokens != nullptr && !tokens->get_array().empty();
  if (has_text || has_tokens) {
    if (finish_reasons_ > 0) return fail(Outcome::kFinishReason);
    if (answer_.first_us) {
      answer_.gaps_ms.push_back(static_cast<float>(now_us - answer_.last_us) / 1e3F);
    }
    if (!answer_.first_us) answer_.first_us = now_us;
    answer_.last_us = now_us;
    ++answer_.pieces;
  }
  if (has_text) answer_.text += std::string_view(text->get_string());
  if (has_tokens) {
    for (const boost::json::value& token : tokens->get_array()) {
      if (!token.is_int64()) return fail(Outcome::kMalformed);
      answer_.tokens.push_back(static_cast<TokenId>(token.get_int64()));
    }
  }
  if (find(choice, "finish_reason") != nullptr) ++finish_reasons_;
}

void AnswerReader::take_usage(const boost::json::object& event) {
  const boost::json::value* usage = find(event, "usage");
  if (usage == nullptr) return;
  const boost::json::object* object = usage->if_object();
  const boost::json::value* count =
      object == nullptr ? nullptr : find(*object, "completion_tokens");
  if (count == nullptr || !count->is_int64()) return fail(Outcome::kMalformed);
  completion_tokens_ = count->get_int64();
}

}  // namespace kvasir::bench
