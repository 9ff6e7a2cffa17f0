#include "http/body_reader.h"

#include <algorithm>
#include <optional>

namespace kvasir::http {
namespace {

constexpr uint32_t kOverheadBytesMax = 16 << 10;
constexpr uint32_t kSizeDigitsMax = 16;

std::optional<uint64_t> hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return std::nullopt;
}

}  // namespace

BodyReader::BodyReader(const RequestHead& head, uint64_t bytes_max)
    : bytes_max_(bytes_max),
      state_(head.chunked ? State::kSizeFirst : State::kBytes),
      left_(head.body_bytes) {}

std::expected<size_t, Refusal> BodyReader::take(std::string_view input) {
  size_t taken = 0;
  while (taken < input.size() && state_ != State::kComplete) {
    if (state_ == State::kBytes || state_ == State::kData) {
      taken += take_data(input.substr(taken));
    } else {
      state_ = next_state(input[taken++]);
    }
    if (state_ == State::kMalformed) {
      return std::unexpected(Refusal{400, "the chunks of the request body are malformed"});
    }
    if (state_ == State::kTooLong) {
      return std::unexpected(Refusal{413, "the request body is too long"});
    }
  }
  return taken;
}

size_t BodyReader::take_data(std::string_view input) {
  const size_t bytes = std::min<uint64_t>(left_, input.size());
  body_.append(input.substr(0, bytes));
  left_ -= bytes;
  if (left_ == 0) state_ = state_ == State::kBytes ? State::kComplete : State::kDataReturn;
  return bytes;
}

BodyReader::State BodyReader::next_state(char c) {
  switch (state_) {
    case State::kSizeFirst:
      left_ = 0;
      digits_ = 0;
      return size_digit(c);
    case State::kSize:
      if (c == '\r') return State::kSizeEnd;
      return c == ';' ? State::kExtension : size_digit(c);
    case State::kExtension:
      return skip(c, State::kSizeEnd);
    case State::kSizeEnd:
      if (c != '\n') return State::kMalformed;
      return left_ > 0 ? State::kData : State::kTrailerFirst;
    case State::kDataReturn:
      return c == '\r' ? State::kDataEnd : State::kMalformed;
    case State::kDataEnd:
      return c == '\n' ? State::kSizeFirst : State::kMalformed;
    case State::kTrailerFirst:
      state_ = State::kTrailer;
      return skip(c, State::kLastEnd);
    case State::kTrailer:
      return skip(c, State::kTrailerEnd);
    case State::kTrailerEnd:
      return c == '\n' ? State::kTrailerFirst : State::kMalformed;
    case State::kLastEnd:
      return c == '\n' ? State::kComplete : State::kMalformed;
    case State::kBytes:
    case State::kData:
    case State::kComplete:
    case State::kMalformed:
    case State::kTooLong:
      break;
  }
  return State::kMalformed;
}

BodyReader::State BodyReader::size_digit(char c) {
  const std::optional<uint64_t> digit = hex_value(c);
  if (!digit || ++digits_ > kSizeDigitsMax) return State::kMalformed;
  left_ = left_ * 16 + *digit;
  return left_ > bytes_max_ - body_.size() ? State::kTooLong : State::kSize;
}

// A byte of an extension or a trailer: nobody reads them, and their number is limited.
BodyReader::State BodyReader::skip(char c, State at_return) {
  if (c == '\r') return at_return;
  const bool control = static_cast<unsigned char>(c) < 0x20 && c != '\t';
  return control || ++overhead_ > kOverheadBytesMax ? State::kMalformed : state_;
}

}  // namespace kvasir::http
