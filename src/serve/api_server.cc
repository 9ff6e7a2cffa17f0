#include "serve/api_server.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <utility>

namespace kvasir::serve {
namespace {

// As clients name it: the file's name without its ending.
std::string model_name(const ServeFlags& flags, const api::Llm& llm) {
  if (!flags.model_name.empty()) return flags.model_name;
  return std::filesystem::path(llm.options().model_path).stem().string();
}

ModelInfo model_info(const ServeFlags& flags, const api::Llm& llm) {
  ModelInfo info = ModelInfo::of(llm);
  info.id = model_name(flags, llm);
  info.created_s = std::chrono::duration_cast<std::chrono::seconds>(
                       std::chrono::system_clock::now().time_since_epoch())
                       .count();
  info.system_fingerprint = "kvasir-" + llm.fingerprint();
  return info;
}

MetricsConstants metrics_constants(const std::string& model, const std::string& version,
                                   const api::Llm& llm) {
  return {.model_name = model,
          .version = version,
          .kv_mode = std::string(kv::cache_mode_name(llm.options().kv_mode)),
          .kv_dtype = std::string(quant::kv_dtype_name(llm.options().kv_dtype)),
          .isa = std::string(kernels::isa_name(llm.options().kernels->isa)),
          .block_tokens = llm.options().block_tokens,
          .blocks = llm.stats().cache.blocks().capacity(),
          .tokens_max = llm.sequence_tokens_limit()};
}

http::ServerOptions server_options(const ServeFlags& flags, const Credentials& credentials) {
  http::ServerOptions options;
  options.limits.body_bytes_max = flags.max_body_bytes;
  options.listeners.push_back(
      {.address = flags.host, .port = static_cast<uint16_t>(flags.port), .tls = credentials.tls});
  if (flags.admin_port) {
    options.listeners.push_back({.address = flags.admin_host,
                                 .port = static_cast<uint16_t>(*flags.admin_port),
                                 .admin = true,
                                 .tls = credentials.tls});
  }
  return options;
}

// Prompts and answers of all that is in the service: for long contexts, twice what can run.
uint64_t queue_tokens_usual(const api::Llm& llm) {
  constexpr uint64_t kLeast = 8'000'000;
  const uint64_t running = uint64_t{llm.plan().limits.sequences_max} * llm.sequence_tokens_limit();
  return std::max(kLeast, 2 * running);
}

api::ServiceLimits service_limits(const ServeFlags& flags, const http::AccessKeys& keys,
                                  const api::Llm& llm) {
  // Where there are keys, nobody is the first tenant, which has none.
  const size_t tenants = keys.empty() ? 1 : keys.tenants().size() - 1;
  return {.answers_max = llm.plan().limits.requests_max,
          .tokens_max = flags.max_queue_tokens.value_or(queue_tokens_usual(llm)),
          .tenants = static_cast<uint32_t>(tenants)};
}

}  // namespace

base::Result<std::unique_ptr<ApiServer>> ApiServer::start(ServeFlags flags, Credentials credentials,
                                                          std::unique_ptr<api::Llm> llm,
                                                          const std::string& version) {
  std::unique_ptr<ApiServer> server(new ApiServer(std::move(flags), std::move(credentials)));
  ASSIGN_OR_RETURN(server->log_,
                   RequestLog::create(server->flags_.log_format, server->flags_.log_level));
  const ServeFlags& held = server->flags_;
  const api::ServiceLimits limits = service_limits(held, server->credentials_.keys, *llm);
  ModelInfo info = model_info(held, *llm);
  server->metrics_ = std::make_unique<Metrics>(metrics_constants(info.id, version, *llm));
  server->service_ = api::Service::start(std::move(llm), limits);
  const ApiServer* raw = server.get();
  server->handlers_ =
      std::make_unique<Handlers>(HandlerParts{.service = server->service_.get(),
                                              .metrics = server->metrics_.get(),
                                              .log = server->log_.get(),
                                              .keys = &server->credentials_.keys,
                                              .flags = &held,
                                              .connections = [raw] { return raw->connections(); },
                                              .version = version},
                                 std::move(info));
  Handlers* handlers = server->handlers_.get();
  ASSIGN_OR_RETURN(server->server_,
                   http::Server::start(
                       server_options(held, server->credentials_),
                       [handlers](const http::Head& head, http::Caller& caller) {
                         return handlers->gate(head, caller);
                       },
                       [handlers](const std::shared_ptr<http::Exchange>& exchange) {
                         handlers->handle(exchange);
                       }));
  server->listening_.store(server->server_.get());
  return server;
}

// Requests may come in while start() has not returned yet.
uint32_t ApiServer::connections() const {
  const http::Server* server = listening_.load();
  return server == nullptr ? 0 : server->connections();
}

ApiServer::ApiServer(ServeFlags flags, Credentials credentials)
    : flags_(std::move(flags)), credentials_(std::move(credentials)) {}

// From the outside in: no more requests, then no more work on them, then the answers under way.
// What hears of their end may still ask the service for something.
ApiServer::~ApiServer() {
  if (server_ != nullptr) server_->stop();
  if (handlers_ != nullptr) handlers_->finish_work();
  if (service_ != nullptr) service_->stop();
  handlers_.reset();
}

std::optional<uint16_t> ApiServer::admin_port() const {
  if (!flags_.admin_port) return std::nullopt;
  return server_->ports().back();
}

void ApiServer::watch() {
  const api::ServiceStats stats = service_->stats();
  const bool stuck = stats.since_step_us > kStuckAfterUs;
  if (stuck && !said_stuck_) {
    log_->error("watchdog", fmt::format("a step has not ended for {} s; /readyz says 503",
                                        stats.since_step_us / 1'000'000));
  }
  said_stuck_ = stuck;
  if (stats.audits_wrong > std::exchange(audits_wrong_said_, stats.audits_wrong)) {
    log_->error("audit", "the cache's books were wrong and have been mended; please report this");
  }
}

void ApiServer::drain() {
  service_->drain();
}

bool ApiServer::drained() {
  if (!service_->idle() || handlers_->completions_open() > 0) return false;
  server_->stop_accepting();
  return server_->connections() == 0;
}

}  // namespace kvasir::serve
