// How a server is set up: where it listens, what a client may do, and who answers.
//
// Thread: value types; gate and handler are called on the I/O thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/exchange.h"

namespace kvasir::http {

class TlsContext;

struct ListenOptions {
  std::string address = "127.0.0.1";
  uint16_t port = 0;   // 0: any free one
  bool admin = false;  // requests that come in here are marked with Head::admin_listener
  std::shared_ptr<const TlsContext> tls;  // nullptr: no TLS
};

// What one client may take, in bytes and in time.
struct Limits {
  uint32_t head_bytes_max = 32 << 10;  // request line and fields; less than 64 KiB
  uint32_t fields_max = 100;
  uint32_t target_bytes_max = 8 << 10;
  uint64_t body_bytes_max = 16 << 20;
  uint64_t bodies_bytes_max = 512 << 20;    // of all requests that are read or answered at a time
  std::optional<uint32_t> connections_max;  // nullopt: what the limit on open files allows

  // Until the first byte of a request, also of the first one, or of a TLS handshake.
  uint32_t idle_ms = 60'000;
  uint32_t head_ms = 10'000;  // from its first byte to its last one; the same for a handshake
  uint32_t body_ms = 30'000;  // the whole body, or what has to come meanwhile at the lowest rate
  uint32_t body_bytes_per_s_min = 16 << 10;
  uint32_t write_stall_ms = 30'000;  // without the client taking a byte
  uint32_t linger_ms = 2'000;        // for the client to close after the last answer
  uint32_t accept_retry_ms = 100;    // after an error such as too many open files

  uint32_t slow_high_bytes = 256 << 10;  // of a stream that wait for its reader: it is slow
  uint32_t slow_low_bytes = 64 << 10;    // it is not slow any more
  uint32_t slow_reader_ms = 30'000;      // slow for so long: it is dropped
  // An event stream silent for so long gets a comment between two pieces: pieces are whole events.
  uint32_t comment_ms = 15'000;
};

// Sees a request before its body is read: authentication, routes, the Host field. Fills in the
// caller, or returns the refusal; after that the connection closes if there is a body. Must not
// block or throw.
using Gate = std::function<std::optional<Response>(const Head&, Caller&)>;

// Gets complete requests; must not block or throw. The answer may come from any thread at any time.
// An exchange that is let go of without an answer is answered with 500.
using Handler = std::function<void(std::shared_ptr<Exchange>)>;

struct ServerOptions {
  std::vector<ListenOptions> listeners;
  Limits limits;
};

}  // namespace kvasir::http
