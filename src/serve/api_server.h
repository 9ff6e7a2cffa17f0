// The server as a whole: the model's service, the endpoints and the listeners.
//
// Thread: one owner; connections and requests live on threads of its own.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "api/service.h"
#include "http/server.h"
#include "serve/handlers.h"
#include "serve/options.h"

namespace kvasir::serve {

class ApiServer {
 public:
  // Error: an address can not be listened on.
  static base::Result<std::unique_ptr<ApiServer>> start(ServeFlags flags, Credentials credentials,
                                                        std::unique_ptr<api::Llm> llm,
                                                        const std::string& version);
  ~ApiServer();  // ends what is under way

  uint16_t port() const { return server_->ports().front(); }
  std::optional<uint16_t> admin_port() const;
  uint32_t connections_max() const { return server_->connections_max(); }
  uint32_t connections() const;

  // Takes no more requests and says so at /readyz; those under way go on.
  void drain();
  // Nothing is under way any more, and every answer has been sent. Ask again until it is so.
  bool drained();
  RequestLog& log() { return *log_; }
  // Logs what an operator must know, once each: a step that does not end, books that were wrong.
  void watch();

 private:
  ApiServer(ServeFlags flags, Credentials credentials);

  ServeFlags flags_;
  Credentials credentials_;
  std::unique_ptr<RequestLog> log_;
  std::unique_ptr<Metrics> metrics_;
  std::unique_ptr<api::Service> service_;
  std::unique_ptr<Handlers> handlers_;
  std::atomic<const http::Server*> listening_{nullptr};
  bool said_stuck_ = false;
  uint64_t audits_wrong_said_ = 0;
  std::unique_ptr<http::Server> server_;  // last: its exchanges use everything above
};

}  // namespace kvasir::serve
