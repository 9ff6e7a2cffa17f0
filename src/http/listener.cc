#include "http/listener.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

#include "http/connection.h"

namespace kvasir::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

ErrorCode bind_and_listen(tcp::acceptor& acceptor, const tcp::endpoint& endpoint) {
  ErrorCode error;
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  return error;
}

}  // namespace

base::Result<std::shared_ptr<Listener>> Listener::open(asio::io_context& context,
                                                       const ListenOptions& options,
                                                       std::shared_ptr<Hub> hub) {
  // The resolver would take it for all addresses of the machine.
  if (options.address.empty()) return base::bad_input("the address to listen on is empty");
  ErrorCode error;
  const auto found = tcp::resolver(context).resolve(
      options.address, std::to_string(options.port),
      tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || found.empty()) {
    return base::bad_input(
        fmt::format("can not listen on {} port {}: {}; give an address of this "
                    "machine such as 127.0.0.1",
                    options.address, options.port, error.message()));
  }
  tcp::acceptor acceptor(context);
  error = bind_and_listen(acceptor, found.begin()->endpoint());
  if (error) {
    return base::runtime_error(fmt::format("can not listen on {} port {}: {}", options.address,
                                           options.port, error.message()));
  }
  return std::shared_ptr<Listener>(new Listener(std::move(acceptor), options, std::move(hub)));
}

Listener::Listener(tcp::acceptor acceptor, const ListenOptions& options, std::shared_ptr<Hub> hub)
    : acceptor_(std::move(acceptor)),
      timer_(acceptor_.get_executor()),
      hub_(std::move(hub)),
      admin_(options.admin),
      tls_(options.tls),
      port_(acceptor_.local_endpoint().port()) {}

void Listener::accept() {
  acceptor_.async_accept([self = shared_from_this()](ErrorCode error, tcp::socket socket) {
    self->on_accept(error, std::move(socket));
  });
}

void Listener::close() {
  ErrorCode ignored;
  acceptor_.close(ignored);
  timer_.cancel();
}

void Listener::on_accept(ErrorCode error, tcp::socket socket) {
  if (!acceptor_.is_open()) return;
  if (error) return accept_later();
  // One too many is closed at once: nothing can be said without keeping it for a while.
  if (hub_->open < hub_->connections_max) {
    ByteStream stream(std::move(socket), tls_.get());
    std::make_shared<Connection>(std::move(stream), hub_, admin_)->start();
  }
  accept();
}

// The client goes on waiting in the kernel's queue; asking again at once would only burn time.
void Listener::accept_later() {
  timer_.expires_after(std::chrono::milliseconds(hub_->limits.accept_retry_ms));
  timer_.async_wait([self = shared_from_this()](ErrorCode error) {
    if (!error && self->acceptor_.is_open()) self->accept();
  });
}

}  // namespace kvasir::http
