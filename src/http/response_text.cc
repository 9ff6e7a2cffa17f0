#include "http/response_text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/http/status.hpp>
#include <ctime>
#include <iterator>

namespace kvasir::http {
namespace {

namespace beast = boost::beast;

bool may_have_body(unsigned status) {
  return status >= 200 && status != 204 && status != 304;
}

// Values may come from handlers that repeat what a client said: no line may end inside one.
void append_field(std::string& out, std::string_view name, std::string_view value) {
  const auto put = [&out](std::string_view text) {
    std::ranges::transform(text, std::back_inserter(out), [](char c) {
      return static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? ' ' : c;
    });
  };
  put(name);
  out += ": ";
  put(value);
  out += "\r\n";
}

void append_status_and_common(std::string& out, unsigned status, const AnswerFrame& frame) {
  const auto reason = beast::http::obsolete_reason(beast::http::int_to_status(status));
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\n", status,
                 std::string_view(reason.data(), reason.size()));
  append_field(out, "Date", fmt::format("{:%a, %d %b %Y %T} GMT", fmt::gmtime(std::time(nullptr))));
  append_field(out, "Server", "kvasir");
  append_field(out, "x-request-id", frame.id);
  if (!frame.keeps_alive) append_field(out, "Connection", "close");
  if (frame.keeps_alive && frame.http_1_0) append_field(out, "Connection", "keep-alive");
}

}  // namespace

void append_answer(std::string& out, const Response& response, const AnswerFrame& frame) {
  append_status_and_common(out, response.status, frame);
  for (const auto& [name, value] : response.fields) append_field(out, name, value);
  const bool has_body = may_have_body(response.status);
  if (has_body) {
    append_field(out, "Content-Type", response.content_type);
    append_field(out, "Content-Length", fmt::format_int(response.body.size()).str());
  }
  out += "\r\n";
  if (has_body && !frame.head_only) out += response.body;
}

void append_stream_head(std::string& out, std::string_view content_type, const AnswerFrame& frame) {
  append_status_and_common(out, 200, frame);
  append_field(out, "Content-Type", content_type);
  append_field(out, "Cache-Control", "no-cache");
  append_field(out, "X-Accel-Buffering", "no");  // proxies must pass on every piece at once
  // A client that speaks 1.0 knows no chunks: for it the stream ends with the connection.
  if (!frame.http_1_0) append_field(out, "Transfer-Encoding", "chunked");
  out += "\r\n";
}

void append_piece(std::string& out, std::string_view piece, const AnswerFrame& frame) {
  if (piece.empty() || frame.head_only) return;
  if (!frame.http_1_0) fmt::format_to(std::back_inserter(out), "{:x}\r\n", piece.size());
  out += piece;
  if (!frame.http_1_0) out += "\r\n";
}

void append_stream_end(std::string& out, const AnswerFrame& frame) {
  if (!frame.http_1_0 && !frame.head_only) out += "0\r\n\r\n";
}

Response refusal_response(const Refusal& refusal) {
  const std::string_view type = refusal.status >= 500 ? "server_error" : "invalid_request_error";
  Response response{
      .status = refusal.status,
      .body = fmt::format(R"({{"error":{{"message":"{}","type":"{}","param":null,"code":null}}}})",
                          refusal.message, type)};
  if (refusal.status == 405) response.fields.emplace_back("Allow", "GET, HEAD, POST, OPTIONS");
  if (refusal.status == 503) response.fields.emplace_back("Retry-After", "1");
  return response;
}

}  // namespace kvasir::http
