// Reads the head of a request: the request line and the fields. What two programs on a path might
// read differently is refused, so that nobody can smuggle a request past a proxy.
//
// Thread: one owner. Allocates: the strings of the head.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "http/exchange.h"
#include "http/options.h"

namespace kvasir::http {

// Why the transport itself answers, and closes.
struct Refusal {
  unsigned status = 400;
  std::string message;  // plain ASCII without quotes, nothing of what the client sent
};

struct RequestHead {
  Head head;
  bool http_1_0 = false;
  bool keeps_alive = true;
  bool chunked = false;
  uint64_t body_bytes = 0;  // if not chunked
  bool expects_continue = false;

  bool has_body() const { return chunked || body_bytes > 0; }
};

// Finds the end of a head while it comes in, and refuses what no head may contain as soon as it is
// seen.
class HeadScanner {
 public:
  // `input` begins with the head; it has grown since the last call. The size of the head with its
  // empty line; nullopt: more must come.
  std::expected<std::optional<size_t>, Refusal> scan(std::string_view input, const Limits& limits);

 private:
  std::optional<Refusal> check(std::string_view input, const Limits& limits) const;

  size_t at_ = 0;          // the byte to look at next
  size_t line_start_ = 0;  // of the line that it is in
  uint32_t lines_ = 0;     // before that one
};

// Requires: the scanner has passed `raw`, the whole head.
std::expected<RequestHead, Refusal> parse_head(std::string_view raw, const Limits& limits);

}  // namespace kvasir::http
