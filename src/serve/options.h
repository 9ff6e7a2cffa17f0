// What an operator decides about a server, checked once.
//
// Thread: value types.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "api/options.h"
#include "base/result.h"
#include "http/access_keys.h"
#include "http/tls_context.h"

namespace kvasir::serve {

// A step that takes longer than this means that the engine is stuck.
inline constexpr uint64_t kStuckAfterUs = 120'000'000;

// As written on a command line.
struct ServeFlags {
  std::string host = "127.0.0.1";
  uint32_t port = 8080;                // 0: any free one
  std::optional<uint32_t> admin_port;  // a second listener, for operators
  std::string admin_host = "127.0.0.1";
  std::vector<std::string> api_keys;
  std::string api_key_file;
  std::optional<std::string> tls_certificate;  // PEM files; both, or neither: no TLS
  std::optional<std::string> tls_key;
  bool insecure = false;                   // other addresses than loopback without keys
  std::vector<std::string> allowed_hosts;  // names in Host and Origin beside the loopback's
  std::string model_name;                  // empty: from the file
  uint32_t max_queue = 1024;               // answers that wait
  // Prompts and max_tokens of all that wait or run; nullopt: 8 million, or more for long contexts.
  std::optional<uint64_t> max_queue_tokens;
  double itl_target_ms = 50.0;     // 0: no bound
  double queue_timeout_s = 600.0;  // 0: for ever, and so on
  double first_token_timeout_s = 0.0;
  double request_timeout_s = 0.0;
  double drain_timeout_s = 30.0;
  uint64_t max_body_bytes = uint64_t{16} << 20;
  std::string log_format = "text";  // text, json
  std::string log_level = "info";   // debug, info, warning, error
};

// What clients and server show each other.
struct Credentials {
  http::AccessKeys keys;
  std::shared_ptr<const http::TlsContext> tls;  // nullptr: no TLS
};

// Reads the files that the flags name. Error: the first flag or file that can not be used, by name,
// with what is allowed.
base::Result<Credentials> check_flags(const ServeFlags& flags);

// How the engine is made for a server.
api::EngineOptions server_engine(const ServeFlags& flags, const http::AccessKeys& keys,
                                 api::EngineOptions engine);

// Whether an address is reached from this machine only.
bool is_loopback(const std::string& host);

}  // namespace kvasir::serve
