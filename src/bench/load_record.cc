#include "bench/load_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <optional>

#include "base/digest.h"

namespace kvasir::bench {
namespace {

std::string sha256_hex(std::string_view text) {
  base::Sha256 sha256;
  sha256.update(std::as_bytes(std::span(text)));
  return base::to_hex(sha256.finish());
}

std::optional<uint32_t> count_of(const boost::json::object& object, std::string_view name) {
  const boost::json::value* value = object.if_contains(name);
  if (value == nullptr || !value->is_int64()) return std::nullopt;
  const int64_t count = value->get_int64();
  if (count < 0 || count > UINT32_MAX) return std::nullopt;
  return static_cast<uint32_t>(count);
}

bool read_request(const boost::json::object& line, LoadRequest& request) {
  const std::optional<uint32_t> index = count_of(line, "index");
  const boost::json::value* body = line.if_contains("request");
  if (!index || body == nullptr || !body->is_object()) return false;
  const std::optional<uint32_t> wanted = count_of(body->get_object(), "max_tokens");
  const boost::json::value* prompt = body->get_object().if_contains("prompt");
  if (!wanted || prompt == nullptr || !prompt->is_array()) return false;
  request = {.index = *index,
             .prompt_tokens = static_cast<uint32_t>(prompt->get_array().size()),
             .tokens_wanted = *wanted,
             .body = boost::json::serialize(*body)};
  return true;
}

std::optional<LoadRecord> parse_record(std::string_view text) {
  boost::system::error_code error;
  const boost::json::value value = boost::json::parse(text, error);
  if (error || !value.is_object()) return std::nullopt;
  const boost::json::object& line = value.get_object();
  LoadRecord record;
  const boost::json::value* answer = line.if_contains("text");
  const boost::json::value* digest = line.if_contains("text_sha256");
  const boost::json::value* tokens = line.if_contains("tokens");
  if (!read_request(line, record.request) || answer == nullptr || !answer->is_string() ||
      digest == nullptr || !digest->is_string() || tokens == nullptr || !tokens->is_array()) {
    return std::nullopt;
  }
  record.text = answer->get_string();
  if (std::string_view(digest->get_string()) != sha256_hex(record.text)) return std::nullopt;
  for (const boost::json::value& token : tokens->get_array()) {
    if (!token.is_int64()) return std::nullopt;
    record.tokens.push_back(static_cast<TokenId>(token.get_int64()));
  }
  return record;
}

}  // namespace

base::Result<RecordWriter> RecordWriter::create(const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) {
    return base::runtime_error(
        fmt::format("--check-file {}: can not be written: {}", path, std::strerror(errno)));
  }
  return RecordWriter(path, std::move(file));
}

void RecordWriter::write(const StreamResult& result, uint64_t seed) {
  boost::system::error_code error;
  boost::json::value request = boost::json::parse(result.request.body, error);
  const boost::json::object line{
      {"index", result.request.index}, {"seed", seed},
      {"request", std::move(request)}, {"text_sha256", sha256_hex(result.answer.text)},
      {"text", result.answer.text},    {"tokens", boost::json::value_from(result.answer.tokens)}};
  file_ << boost::json::serialize(line) << '\n';
}

base::Status RecordWriter::close() {
  file_.close();
  if (!file_) return base::runtime_error(fmt::format("--check-file {}: not all written", path_));
  return {};
}

base::Result<std::vector<LoadRecord>> read_records(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return base::bad_input(
        fmt::format("--verify {}: can not be read: {}", path, std::strerror(errno)));
  }
  std::vector<LoadRecord> records;
  for (std::string line; std::getline(file, line);) {
    std::optional<LoadRecord> record = parse_record(line);
    if (!record) {
      return base::bad_input(fmt::format("--verify {}: line {} is not what --check-file writes",
                                         path, records.size() + 1));
    }
    records.push_back(*std::move(record));
  }
  if (records.empty()) return base::bad_input(fmt::format("--verify {}: it is empty", path));
  return records;
}

std::string difference(const LoadRecord& record, const StreamAnswer& answer) {
  if (record.text != answer.text) {
    const auto [here, there] = std::ranges::mismatch(record.text, answer.text);
    return fmt::format("its text differs from byte {} on", here - record.text.begin());
  }
  if (!record.tokens.empty() && !answer.tokens.empty() && record.tokens != answer.tokens) {
    const auto [here, there] = std::ranges::mismatch(record.tokens, answer.tokens);
    return fmt::format("its tokens differ from the {}th on", here - record.tokens.begin());
  }
  return "";
}

}  // namespace kvasir::bench
