// Accepts connections on one address and port.
//
// Thread: open() any; the rest I/O thread. Allocates: a connection per client.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "http/hub.h"
#include "http/options.h"

namespace kvasir::http {

class Listener : public std::enable_shared_from_this<Listener> {
 public:
  // Binds; clients may connect from now on, and wait for accept(). Error: the address means
  // nothing, or can not be had.
  static base::Result<std::shared_ptr<Listener>> open(boost::asio::io_context& context,
                                                      const ListenOptions& options,
                                                      std::shared_ptr<Hub> hub);
  uint16_t port() const { return port_; }

  void accept();
  void close();

 private:
  Listener(boost::asio::ip::tcp::acceptor acceptor, const ListenOptions& options,
           std::shared_ptr<Hub> hub);
  void on_accept(boost::system::error_code error, boost::asio::ip::tcp::socket socket);
  void accept_later();

  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer timer_;
  const std::shared_ptr<Hub> hub_;
  const bool admin_;
  const std::shared_ptr<const TlsContext> tls_;  // nullptr: no TLS
  const uint16_t port_;
};

}  // namespace kvasir::http
