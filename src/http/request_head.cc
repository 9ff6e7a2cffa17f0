#include "http/request_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <charconv>
#include <utility>
#include <vector>

namespace kvasir::http {
namespace {

namespace beast = boost::beast;

// Method, version and spaces beside the target of a request line.
constexpr size_t kBesideTargetBytes = 64;

std::unexpected<Refusal> refuse(unsigned status, std::string message) {
  return std::unexpected(Refusal{status, std::move(message)});
}

bool is_control(char c) {
  return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
}

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::ranges::transform(lower, lower.begin(),
                         [](char c) { return c >= 'A' && c <= 'Z' ? char(c + 32) : c; });
  return lower;
}

// "... HTTP/2.0": well-formed, but no version that is spoken here.
bool names_other_version(std::string_view raw) {
  const std::string_view line = raw.substr(0, raw.find('\r'));
  const size_t at = line.rfind(" HTTP/");
  if (at == line.npos || line.size() != at + 9) return false;
  return is_digit(line[at + 6]) && line[at + 6] != '1' && line[at + 7] == '.' &&
         is_digit(line[at + 8]);
}

using Values = std::vector<std::string_view>;

Values values_of(const Head& head, std::string_view name) {
  Values values;
  for (const auto& [known, value] : head.fields) {
    if (known == name) values.push_back(value);
  }
  return values;
}

using Check = std::expected<void, Refusal>;

Check check_host(const RequestHead& request) {
  const size_t count = values_of(request.head, "host").size();
  if (count > 1) return refuse(400, "more than one Host field");
  if (count == 0 && !request.http_1_0) return refuse(400, "the Host field is missing");
  return {};
}

// How long the body is: exactly one way of saying so is allowed (RFC 9112, section 6.3).
Check read_framing(RequestHead& request) {
  const Values codings = values_of(request.head, "transfer-encoding");
  const Values lengths = values_of(request.head, "content-length");
  if (!codings.empty()) {
    if (!lengths.empty()) return refuse(400, "both Transfer-Encoding and Content-Length");
    if (request.http_1_0) return refuse(400, "Transfer-Encoding in an HTTP/1.0 request");
    if (codings.size() > 1 || lower_case(codings[0]) != "chunked") {
      return refuse(400, "the only Transfer-Encoding understood is chunked");
    }
    request.chunked = true;
  }
  if (lengths.empty()) return {};
  if (lengths.size() > 1) return refuse(400, "more than one Content-Length field");
  const std::string_view digits = lengths[0];
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), request.body_bytes);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    return refuse(400, "Content-Length is not a number");
  }
  return {};
}

Check read_expectations(RequestHead& request) {
  for (const std::string_view coding : values_of(request.head, "content-encoding")) {
    if (lower_case(coding) != "identity") {
      return refuse(415, "compressed bodies are not accepted; send it without Content-Encoding");
    }
  }
  if (request.http_1_0) return {};
  for (const std::string_view expected : values_of(request.head, "expect")) {
    if (lower_case(expected) != "100-continue") {
      return refuse(417, "the only expectation understood is 100-continue");
    }
    request.expects_continue = true;
  }
  return {};
}

void set_host(Head& head, std::string_view host) {
  for (auto& [name, value] : head.fields) {
    if (name == "host") value = host;
  }
}

// Splits "/path?query". "http://host/path" names the host itself, and that goes before what the
// Host field says (RFC 9112, section 3.2.2).
Check read_target(std::string_view target, Head& head, const Limits& limits) {
  if (target.size() > limits.target_bytes_max) return refuse(414, "the request target is too long");
  if (std::ranges::any_of(target, [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    return refuse(400, "the request target has characters that are not percent-encoded");
  }
  const std::string lower = lower_case(target.substr(0, 8));
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!lower.starts_with(scheme)) continue;
    target.remove_prefix(scheme.size());
    const size_t end = std::min(target.find_first_of("/?"), target.size());
    set_host(head, target.substr(0, end));
    target.remove_prefix(end);
    if (!target.starts_with('/')) head.path = "/";
    break;
  }
  const bool rooted = target.starts_with('/') || head.path == "/";
  if (!rooted && !(target == "*" && head.method == "OPTIONS")) {
    return refuse(400, "the request target does not begin with a slash");
  }
  const size_t question = std::min(target.find('?'), target.size());
  head.path += target.substr(0, question);
  if (question < target.size()) head.query = target.substr(question + 1);
  return {};
}

}  // namespace

std::expected<std::optional<size_t>, Refusal> HeadScanner::scan(std::string_view input,
                                                                const Limits& limits) {
  for (; at_ < input.size(); ++at_) {
    if (auto refusal = check(input, limits)) return std::unexpected(*std::move(refusal));
    if (input[at_] != '\n') continue;
    const bool empty = at_ == line_start_ + 1;
    if (empty && lines_ > 0) return ++at_;
    if (empty) return refuse(400, "the request line is empty");
    ++lines_;
    line_start_ = at_ + 1;
  }
  return std::nullopt;
}

std::optional<Refusal> HeadScanner::check(std::string_view input, const Limits& limits) const {
  if (at_ >= limits.head_bytes_max) return Refusal{431, "the head of the request is too long"};
  const char c = input[at_];
  const bool line_feed_due = at_ > 0 && input[at_ - 1] == '\r';
  if (line_feed_due != (c == '\n')) {
    return Refusal{400, "a line in the head of the request does not end with CR LF"};
  }
  if (is_control(c) && c != '\r' && c != '\n' && c != '\t') {
    return Refusal{400, "a control character in the head of the request"};
  }
  if (at_ == line_start_ && (c == ' ' || c == '\t')) {
    return Refusal{400, "a line in the head of the request begins with a space"};
  }
  if (lines_ == 0 && at_ > limits.target_bytes_max + kBesideTargetBytes) {
    return Refusal{414, "the request target is too long"};
  }
  // One line is the request line; the line that begins here may be the empty one.
  if (lines_ > limits.fields_max && at_ == line_start_ && c != '\r') {
    return Refusal{431, "too many fields"};
  }
  return std::nullopt;
}

std::expected<RequestHead, Refusal> parse_head(std::string_view raw, const Limits& limits) {
  beast::http::request_parser<beast::http::empty_body> parser;
  parser.header_limit(static_cast<uint32_t>(raw.size()) + 1);
  parser.skip(true);  // the body is read elsewhere
  beast::error_code error;
  parser.put(boost::asio::buffer(raw), error);
  if (error == beast::http::error::bad_version && names_other_version(raw)) {
    return refuse(505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
  }
  if (error) return refuse(400, "the request is malformed: " + error.message());
  if (!parser.is_done()) return refuse(400, "the head of the request is malformed");

  const auto& message = parser.get();
  RequestHead request{.http_1_0 = message.version() == 10, .keeps_alive = parser.keep_alive()};
  request.head.method = message.method_string();
  for (const auto& field : message) {
    request.head.fields.emplace_back(lower_case(field.name_string()), field.value());
  }
  if (request.head.method == "CONNECT" || request.head.method == "TRACE") {
    return refuse(405, "the methods CONNECT and TRACE are not served");
  }
  Check check = check_host(request);
  if (check) check = read_framing(request);
  if (check) check = read_expectations(request);
  if (check) check = read_target(message.target(), request.head, limits);
  if (!check) return std::unexpected(std::move(check).error());
  return request;
}

}  // namespace kvasir::http
