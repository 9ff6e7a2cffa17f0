// Takes the body of a request out of what arrives: a known number of bytes, or chunks.
//
// Beast decodes chunks too, but in 1.81 it asserts on a last chunk that comes in small pieces and
// lets bare line feeds pass in extensions.
//
// Thread: one owner. Allocates: the body, as it comes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <utility>

#include "http/request_head.h"

namespace kvasir::http {

class BodyReader {
 public:
  // Requires: the head announces a body, of at most `bytes_max` if it says how long.
  BodyReader(const RequestHead& head, uint64_t bytes_max);

  // How many of the bytes belong to the body; they have been taken.
  std::expected<size_t, Refusal> take(std::string_view input);
  bool complete() const { return state_ == State::kComplete; }
  // Requires: complete().
  std::string release() { return std::move(body_); }

 private:
  // kBytes: of a body of known length. The others follow the grammar of chunks (RFC 9112, 7.1).
  enum class State : uint8_t {
    kBytes,
    kSizeFirst,  // the first digit of a chunk's size
    kSize,
    kExtension,
    kSizeEnd,  // the line feed
    kData,
    kDataReturn,
    kDataEnd,
    kTrailerFirst,  // the first byte of a line behind the last chunk
    kTrailer,
    kTrailerEnd,
    kLastEnd,
    kComplete,
    kMalformed,
    kTooLong,
  };

  size_t take_data(std::string_view input);
  State next_state(char c);
  State size_digit(char c);
  State skip(char c, State at_return);

  uint64_t bytes_max_;
  State state_;
  uint64_t left_ = 0;      // of the chunk or of the body
  uint32_t digits_ = 0;    // of the chunk's size
  uint32_t overhead_ = 0;  // bytes of extensions and trailers
  std::string body_;
};

}  // namespace kvasir::http
