#include "http/server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <exception>
#include <random>
#include <thread>
#include <utility>

#include "base/check.h"
#include "http/connection.h"
#include "http/hub.h"
#include "http/listener.h"
#include "http/mailbox.h"

namespace kvasir::http {
namespace {

namespace asio = boost::asio;

constexpr uint64_t kConnectionsDefaultMax = 65'536;
constexpr uint64_t kFilesReserve = 128;  // for everything in the process that is no connection
constexpr uint32_t kHeadBytesLimit = 64 << 10;  // Beast's parser throws beyond

// How many files the process may open, after having asked for as many as it can get.
uint64_t raise_file_limit() {
  rlimit limit{};
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  rlimit raised = limit;
  raised.rlim_cur = raised.rlim_max;
  return setrlimit(RLIMIT_NOFILE, &raised) == 0 ? raised.rlim_cur : limit.rlim_cur;
}

uint32_t default_connections_max(uint64_t files_max) {
  const uint64_t left = files_max > 2 * kFilesReserve ? files_max - kFilesReserve : files_max / 2;
  return static_cast<uint32_t>(std::min(left, kConnectionsDefaultMax));
}

std::shared_ptr<Hub> make_hub(const Limits& limits, Gate gate, Handler handler) {
  CHECK(limits.head_bytes_max < kHeadBytesLimit && limits.target_bytes_max < kHeadBytesLimit);
  const uint64_t files_max = raise_file_limit();
  std::random_device random;
  auto hub = std::make_shared<Hub>();
  hub->limits = limits;
  hub->connections_max = limits.connections_max.value_or(default_connections_max(files_max));
  hub->gate = std::move(gate);
  hub->handler = std::move(handler);
  hub->id_key = {.seed = (uint64_t{random()} << 32) | random()};
  return hub;
}

}  // namespace

struct Server::Parts {
  asio::io_context context{1};  // run by one thread
  asio::executor_work_guard<asio::io_context::executor_type> work = make_work_guard(context);
  std::shared_ptr<Mailbox> mailbox = std::make_shared<Mailbox>(context);
  std::shared_ptr<Hub> hub;
  std::vector<std::shared_ptr<Listener>> listeners;
  std::vector<uint16_t> ports;
  std::thread thread;

  base::Status open_listeners(const std::vector<ListenOptions>& options);
  void drain();
  void end();
};

base::Status Server::Parts::open_listeners(const std::vector<ListenOptions>& options) {
  for (const ListenOptions& one : options) {
    ASSIGN_OR_RETURN(auto listener, Listener::open(context, one, hub));
    ports.push_back(listener->port());
    listeners.push_back(std::move(listener));
  }
  return {};
}

void Server::Parts::drain() {
  hub->draining = true;
  for (const auto& listener : listeners) listener->close();
  const auto connections = hub->connections;  // those that close leave the set
  for (const auto& connection : connections) connection->close_if_idle();
}

void Server::Parts::end() {
  drain();
  const auto connections = hub->connections;
  for (const auto& connection : connections) connection->close();
  mailbox->close();
  context.stop();
}

base::Result<std::unique_ptr<Server>> Server::start(const ServerOptions& options, Gate gate,
                                                    Handler handler) {
  try {
    auto parts = std::make_unique<Parts>();
    parts->hub = make_hub(options.limits, std::move(gate), std::move(handler));
    parts->hub->mailbox = parts->mailbox;
    RETURN_IF_ERROR(parts->open_listeners(options.listeners));
    for (const auto& listener : parts->listeners) listener->accept();
    parts->thread = std::thread([running = parts.get()] { running->context.run(); });
    return std::unique_ptr<Server>(new Server(std::move(parts)));
  } catch (const std::exception& failure) {  // out of files, memory or threads
    return base::runtime_error(fmt::format("can not start the HTTP server: {}", failure.what()));
  }
}

Server::Server(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

Server::~Server() {
  stop();
}

const std::vector<uint16_t>& Server::ports() const {
  return parts_->ports;
}

uint32_t Server::connections() const {
  return parts_->hub->open;
}

uint32_t Server::connections_max() const {
  return parts_->hub->connections_max;
}

void Server::stop_accepting() {
  parts_->mailbox->post([parts = parts_.get()] { parts->drain(); });
}

void Server::stop() {
  if (!parts_->thread.joinable()) return;
  CHECK(parts_->thread.get_id() != std::this_thread::get_id());
  parts_->mailbox->post([parts = parts_.get()] { parts->end(); });
  parts_->thread.join();
}

bool Server::post(std::function<void()> call) {
  return parts_->mailbox->post(std::move(call));
}

}  // namespace kvasir::http
