// An HTTP/1.1 server: listeners, their connections, and the one thread that does all of their
// input and output.
//
// Thread: post() and connections() any, after start(); start, stop_accepting, stop and the
// destructor one owner, never the I/O thread. Allocates: connections and what they carry.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/result.h"
#include "http/options.h"

namespace kvasir::http {

class Server {
 public:
  // Raises this process's limit on open files as far as it may go, binds all addresses and begins
  // to serve. Error: an address can not be had; says which and why.
  static base::Result<std::unique_ptr<Server>> start(const ServerOptions& options, Gate gate,
                                                     Handler handler);
  ~Server();  // stops
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  const std::vector<uint16_t>& ports() const;  // of the listeners, in their order
  uint32_t connections() const;                // open now
  uint32_t connections_max() const;

  // Takes no new connections. Idle ones are closed at once, the others after their answer: when
  // connections() has come to 0, every answer has been sent whole.
  void stop_accepting();
  // Ends everything at once; exchanges still open see on_gone. Returns when the thread has ended:
  // nothing is called back any more.
  void stop();

  // Runs `call` on the I/O thread; false: the server has stopped, it will never run.
  bool post(std::function<void()> call);

 private:
  struct Parts;
  explicit Server(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

}  // namespace kvasir::http
