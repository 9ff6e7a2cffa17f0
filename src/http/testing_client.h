// A client that sends what a test gives it, byte for byte, and a server for it to talk to. For
// tests only: what goes wrong here ends the program.
//
// Thread: a client has one owner. Allocates: yes.
#pragma once

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/check.h"
#include "http/server.h"
#include "http/testing_tls.h"

namespace kvasir::http::testing {

constexpr auto kPatience = std::chrono::seconds(10);

// Waits until it is so; false: it never was.
inline bool eventually(const std::function<bool()>& is_so) {
  const auto end = std::chrono::steady_clock::now() + kPatience;
  while (!is_so()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

// Requests as clients send them.
inline std::string get(std::string_view path) {
  return fmt::format("GET {} HTTP/1.1\r\nHost: me\r\n\r\n", path);
}
inline std::string post(std::string_view path, std::string_view body) {
  return fmt::format("POST {} HTTP/1.1\r\nHost: me\r\nContent-Length: {}\r\n\r\n{}", path,
                     body.size(), body);
}

struct Reply {
  unsigned status = 0;
  std::string head;  // as it came
  std::string body;  // chunks put together

  // "": absent. `name` as the server writes it.
  std::string field(std::string_view name) const {
    const std::string start = fmt::format("\r\n{}: ", name);
    const size_t at = head.find(start);
    if (at == head.npos) return "";
    return head.substr(at + start.size(), head.find("\r\n", at + 2) - at - start.size());
  }
};

class Client {
 public:
  // A socket that is not connected yet; `receive_bytes`: size of its buffer.
  explicit Client(std::optional<int> receive_bytes = std::nullopt)
      : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    CHECK(fd_ >= 0);
    const timeval patience{.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    const int on = 1;
    setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (receive_bytes) {
      setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &*receive_bytes, sizeof *receive_bytes);
    }
  }
  Client(Client&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)),
        tls_(std::move(other.tls_)),
        input_(std::move(other.input_)) {}
  Client& operator=(Client&&) = delete;
  ~Client() { hang_up(); }

  Client& connect(uint16_t port) {
    CHECK(try_connect(port));
    return *this;
  }
  bool try_connect(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return ::connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  }
  // What follows is sent and read inside TLS, by one thread at a time. false: the server refuses.
  bool try_tls(std::optional<int> version = std::nullopt) {
    tls_ = std::make_unique<ClientTls>(fd_, version);
    return tls_->handshake();
  }
  Client& start_tls() {
    CHECK(try_tls());
    return *this;
  }
  // Requires: TLS has been started.
  ClientTls& tls() { return *tls_; }
  // Whether TLS, where it has been started, has been ended by the server.
  bool told_end() const { return tls_ != nullptr && tls_->told_end(); }

  // A server that has closed already is no error: what it said shows in its reply.
  Client& send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent =
          tls_ ? tls_->send(bytes) : ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return *this;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return *this;
  }
  void send_end() {
    if (tls_) tls_->send_end();
    ::shutdown(fd_, SHUT_WR);
  }
  // Of the connection alone: TLS just stops.
  void hang_up() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }
  void reset() {
    const linger now{.l_onoff = 1, .l_linger = 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    hang_up();
  }

  // Reads up to and including `end`.
  std::string read_until(std::string_view end) {
    size_t at = 0;
    while ((at = input_.find(end)) == input_.npos) CHECK(receive());
    return take(at + end.size());
  }
  std::string read_bytes(size_t bytes) {
    while (input_.size() < bytes) CHECK(receive());
    return take(bytes);
  }
  Reply read_head() {
    Reply reply{.head = read_until("\r\n\r\n")};
    reply.status = static_cast<unsigned>(std::stoul(reply.head.substr(9, 3)));
    return reply;
  }
  Reply read_reply() {
    Reply reply = read_head();
    if (const std::string length = reply.field("Content-Length"); !length.empty()) {
      reply.body = read_bytes(std::stoul(length));
    } else if (reply.field("Transfer-Encoding") == "chunked") {
      while (const auto piece = read_chunk()) reply.body += *piece;
    } else {
      reply.body = read_to_end();
    }
    return reply;
  }
  // nullopt: it was the last one.
  std::optional<std::string> read_chunk() {
    const size_t size = std::stoul(read_until("\r\n"), nullptr, 16);
    const std::string data = read_bytes(size);
    CHECK(read_until("\r\n") == "\r\n");
    if (size == 0) return std::nullopt;
    return data;
  }
  std::string read_to_end() {
    while (receive()) {
    }
    return take(input_.size());
  }
  // Whether the server closes, and says nothing more before.
  bool closed() { return input_.empty() && !receive(); }

 private:
  // false: the server has closed.
  bool receive() {
    char buffer[16 << 10];
    const ssize_t bytes = tls_ ? tls_->receive(buffer) : ::recv(fd_, buffer, sizeof buffer, 0);
    CHECK(bytes >= 0 || errno == ECONNRESET);  // silence is no answer
    if (bytes > 0) input_.append(buffer, static_cast<size_t>(bytes));
    return bytes > 0;
  }
  std::string take(size_t bytes) {
    std::string taken = input_.substr(0, bytes);
    input_.erase(0, bytes);
    return taken;
  }

  int fd_;
  std::unique_ptr<ClientTls> tls_;  // nullptr: not started
  std::string input_;
};

// Answers at once what it is asked, but for paths that begin with /open: those exchanges it keeps
// for the test. The gate refuses /refused with 404 and marks what asks with a key as admin.
class EchoServer {
 public:
  explicit EchoServer(const Limits& limits = {}, std::vector<ListenOptions> listeners = {{}})
      : tls_(listeners.front().tls != nullptr) {
    auto started =
        Server::start({std::move(listeners), limits}, &EchoServer::gate,
                      [this](std::shared_ptr<Exchange> exchange) { handle(std::move(exchange)); });
    CHECK(started.has_value());
    server_ = *std::move(started);
  }
  ~EchoServer() { server_->stop(); }

  Server& server() { return *server_; }
  uint16_t port() const { return server_->ports().front(); }
  // Over TLS if the first listener speaks it.
  Client connect(std::optional<int> receive_bytes = std::nullopt) const {
    Client client(receive_bytes);
    client.connect(port());
    if (tls_) client.start_tls();
    return client;
  }
  // The next exchange that was kept.
  std::shared_ptr<Exchange> take() {
    std::unique_lock lock(mutex_);
    CHECK(kept_changed_.wait_for(lock, kPatience, [this] { return !kept_.empty(); }));
    auto exchange = std::move(kept_.front());
    kept_.pop_front();
    return exchange;
  }

 private:
  static std::optional<Response> gate(const Head& head, Caller& caller) {
    if (head.path == "/refused") return Response{.status = 404, .body = "{}"};
    caller.admin = head.admin_listener;
    return std::nullopt;
  }
  void handle(std::shared_ptr<Exchange> exchange) {
    const Request& request = exchange->request();
    if (!request.head.path.starts_with("/open")) {
      return exchange->respond(
          {.body = request.head.method + " " + request.head.path + " " + request.body});
    }
    const std::lock_guard lock(mutex_);
    kept_.push_back(std::move(exchange));
    kept_changed_.notify_one();
  }

  const bool tls_;
  std::mutex mutex_;
  std::condition_variable kept_changed_;
  std::deque<std::shared_ptr<Exchange>> kept_;
  std::unique_ptr<Server> server_;
};

// What is promised of connections holds with and without TLS.
enum class Wire : uint8_t { kPlain, kTls };

inline std::string wire_name(const ::testing::TestParamInfo<Wire>& wire) {
  return wire.param == Wire::kTls ? "tls" : "plain";
}

class EchoOver : public EchoServer {
 public:
  explicit EchoOver(Wire wire, const Limits& limits = {})
      : EchoServer(limits, {{.tls = wire == Wire::kTls ? make_tls() : nullptr}}) {}
};

}  // namespace kvasir::http::testing
