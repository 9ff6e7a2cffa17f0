// Every endpoint: who may use it and what it does.
//
// Thread: gate() and handle() on the I/O thread; whatever reads a body, renders or tokenizes goes
// to a worker, so that /livez answers whatever others send. Allocates: freely.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/service.h"
#include "http/access_keys.h"
#include "http/exchange.h"
#include "serve/completion.h"
#include "serve/metrics.h"
#include "serve/model_info.h"
#include "serve/options.h"
#include "serve/request_log.h"

namespace kvasir::serve {

// What handlers use; all of it must outlive them.
struct HandlerParts {
  api::Service* service = nullptr;
  Metrics* metrics = nullptr;
  RequestLog* log = nullptr;
  const http::AccessKeys* keys = nullptr;
  const ServeFlags* flags = nullptr;
  std::function<uint32_t()> connections;  // open now
  std::string version;
};

class Handlers {
 public:
  Handlers(HandlerParts parts, ModelInfo model);
  ~Handlers();
  // Returns when everything handed to the worker is done. No handle() after it.
  void finish_work() { worker_.join(); }

  // Before the body is read: the refusal, or nothing.
  std::optional<http::Response> gate(const http::Head& head, http::Caller& caller) const;
  void handle(const std::shared_ptr<http::Exchange>& exchange);

  // Completions whose client still waits.
  uint32_t completions_open() const { return completions_open_.load(); }

 private:
  using Shared = std::shared_ptr<http::Exchange>;
  using Action = void (Handlers::*)(const Shared&);
  // kOpen: no key needed. kKeyed: any key. kAdmin: an admin's, on the admin listener if there is
  // one.
  enum class Access : uint8_t { kOpen, kKeyed, kAdmin };
  struct Route {
    std::string_view method;
    std::string_view path;
    Access access;
    bool works;  // goes to the worker
    Action action;
  };
  using Parser = ApiResult<std::unique_ptr<Call>> (*)(const ModelInfo&, const http::Request&);
  using TextFunction = http::Response (*)(const ModelInfo&, const http::Request&);

  static std::span<const Route> routes();
  static const Route* find_route(const http::Head& head);
  static http::Response no_route(const http::Head& head);
  std::optional<http::Response> check_origin(const http::Head& head) const;
  std::optional<http::Response> check_access(const http::Head& head, const Route* route,
                                             http::Caller& caller) const;
  bool is_own_name(std::string_view authority, std::string_view host) const;

  void complete(const Shared& exchange, Parser parse);
  ApiResult<uint32_t> check_requests(const std::vector<api::GenerateRequest>& requests,
                                     uint32_t tenant) const;
  bool claim_tenant_place(uint32_t tenant, uint32_t answers);

  void live(const Shared& exchange);
  void ready(const Shared& exchange);
  void version(const Shared& exchange);
  void models(const Shared& exchange);
  void tokenizer_info(const Shared& exchange);
  void metrics(const Shared& exchange);
  void openapi(const Shared& exchange);
  void kv_stats(const Shared& exchange);
  void kv_map(const Shared& exchange);
  void reset_cache(const Shared& exchange);
  void chat(const Shared& exchange);
  void completions(const Shared& exchange);
  void llama_completion(const Shared& exchange);
  void infill(const Shared& exchange);
  void tokenize(const Shared& exchange);
  void detokenize(const Shared& exchange);
  void render(const Shared& exchange);

  HandlerParts parts_;
  ModelInfo model_;
  CompletionParts completion_parts_;
  std::atomic<uint32_t> completions_open_{0};
  std::vector<std::atomic<uint32_t>> tenant_answers_;  // under way, by tenant
  // Last: their work uses everything above.
  boost::asio::thread_pool writer_{1};  // puts answers under way into words
  boost::asio::thread_pool worker_{1};  // reads requests
};

}  // namespace kvasir::serve
