#include "serve/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <cmath>
#include <utility>

namespace kvasir::serve {
namespace {

constexpr double kKvShareOfFree = 0.6;
constexpr uint32_t kPortMax = 65535;
constexpr uint32_t kQueueMax = 1U << 20;

base::Status check_seconds(const char* flag, double seconds) {
  if (std::isfinite(seconds) && seconds >= 0.0 && seconds <= 1e6) return {};
  return base::bad_input(fmt::format("{} {}: use 0 (for ever) to 1000000 seconds", flag, seconds));
}

base::Status check_numbers(const ServeFlags& flags) {
  if (flags.port > kPortMax) {
    return base::bad_input(fmt::format("--port {}: use 0 to {}", flags.port, kPortMax));
  }
  if (flags.admin_port && *flags.admin_port > kPortMax) {
    return base::bad_input(
        fmt::format("--admin-port {}: use 0 to {}", *flags.admin_port, kPortMax));
  }
  if (flags.max_queue > kQueueMax) {
    return base::bad_input(fmt::format("--max-queue {}: use 0 to {}", flags.max_queue, kQueueMax));
  }
  if (flags.max_queue_tokens == 0U) return base::bad_input("--max-queue-tokens 0: use at least 1");
  if (flags.max_body_bytes < 1024 || flags.max_body_bytes > (uint64_t{1} << 30)) {
    return base::bad_input(
        fmt::format("--max-body {}: use 1024 to 1073741824 bytes", flags.max_body_bytes));
  }
  if (!std::isfinite(flags.itl_target_ms) || flags.itl_target_ms < 0.0 ||
      flags.itl_target_ms > 60'000.0) {
    return base::bad_input(
        fmt::format("--itl-target-ms {}: use 0 (no bound) to 60000", flags.itl_target_ms));
  }
  RETURN_IF_ERROR(check_seconds("--queue-timeout", flags.queue_timeout_s));
  RETURN_IF_ERROR(check_seconds("--first-token-timeout", flags.first_token_timeout_s));
  RETURN_IF_ERROR(check_seconds("--request-timeout", flags.request_timeout_s));
  return check_seconds("--drain-timeout", flags.drain_timeout_s);
}

base::Result<http::AccessKeys> read_keys(const ServeFlags& flags) {
  http::AccessKeys keys;
  for (const std::string& key : flags.api_keys) {
    if (const base::Status added = keys.add(key, /*admin=*/true); !added) {
      return base::bad_input("--api-key: " + added.error().message);
    }
  }
  if (!flags.api_key_file.empty()) {
    RETURN_IF_ERROR(keys.read_file(flags.api_key_file));
    // Whoever names a file does not want a server that is open to all.
    if (keys.empty()) return base::bad_input(flags.api_key_file + ": holds no keys; add one");
  }
  return keys;
}

base::Status check_tls_files(const ServeFlags& flags) {
  if (flags.tls_certificate.has_value() != flags.tls_key.has_value()) {
    return base::bad_input(flags.tls_key ? "--tls-key goes with --tls-cert: give both or neither"
                                         : "--tls-cert goes with --tls-key: give both or neither");
  }
  // Whoever means to have TLS must not get a server without because a variable was not set.
  if (flags.tls_certificate == "") return base::bad_input("--tls-cert is empty: name a file");
  if (flags.tls_key == "") return base::bad_input("--tls-key is empty: name a file");
  return {};
}

}  // namespace

// A name may mean any address, but for the one that everybody knows.
bool is_loopback(const std::string& host) {
  if (host == "localhost") return true;
  boost::system::error_code error;
  const auto address = boost::asio::ip::make_address(host, error);
  return !error && address.is_loopback();
}

base::Result<Credentials> check_flags(const ServeFlags& flags) {
  RETURN_IF_ERROR(check_numbers(flags));
  RETURN_IF_ERROR(check_tls_files(flags));
  Credentials credentials;
  ASSIGN_OR_RETURN(credentials.keys, read_keys(flags));
  const bool reachable =
      !is_loopback(flags.host) || (flags.admin_port && !is_loopback(flags.admin_host));
  if (reachable && credentials.keys.empty() && !flags.insecure) {
    return base::bad_input(
        fmt::format("--host {}: others could use the server without a key; give --api-key or "
                    "--api-key-file, or say --insecure",
                    is_loopback(flags.host) ? flags.admin_host : flags.host));
  }
  if (flags.tls_certificate) {
    ASSIGN_OR_RETURN(credentials.tls,
                     http::TlsContext::load(*flags.tls_certificate, *flags.tls_key));
  }
  return credentials;
}

api::EngineOptions server_engine(const ServeFlags& flags, const http::AccessKeys& keys,
                                 api::EngineOptions engine) {
  engine.requests_max = engine.sequences_max + flags.max_queue;
  engine.kv_share_of_free = kKvShareOfFree;
  engine.step_target_us = static_cast<uint64_t>(flags.itl_target_ms * 1e3);
  for (const http::Tenant& tenant : keys.tenants()) {
    engine.tenant_weights.push_back(tenant.weight());
  }
  // A prompt whose logprobs are asked for needs a row of logits for each token of a step.
  engine.logit_rows_max = std::max(engine.sequences_max + 64, engine.logit_rows_max);
  return engine;
}

}  // namespace kvasir::serve
