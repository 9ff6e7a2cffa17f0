// A small HTTP server for tests of the load client: it sends what a function tells it to, byte for
// byte.
//
// Thread: answers are made on a thread of its own. Allocates: freely.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace kvasir::bench {

class TestingServer {
 public:
  using Request = boost::beast::http::request<boost::beast::http::string_body>;
  struct Answer {
    std::string bytes;   // none: the client waits
    bool close = false;  // after sending them
  };
  using MakeAnswer = std::function<Answer(const Request&)>;

  explicit TestingServer(MakeAnswer make_answer)
      : make_answer_(std::move(make_answer)),
        acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    accept();
    thread_ = std::jthread([this] { io_.run(); });
  }
  ~TestingServer() { io_.stop(); }
  TestingServer(const TestingServer&) = delete;
  TestingServer& operator=(const TestingServer&) = delete;

  std::string url() const {
    return "http://127.0.0.1:" + std::to_string(acceptor_.local_endpoint().port());
  }
  int connections() const { return connections_.load(); }

 private:
  using Socket = boost::asio::ip::tcp::socket;
  using Error = boost::system::error_code;

  struct Session : std::enable_shared_from_this<Session> {
    Session(TestingServer& owner, Socket connected) : server(owner), socket(std::move(connected)) {}

    void read() {
      request = {};
      boost::beast::http::async_read(socket, buffer, request,
                                     [self = shared_from_this()](const Error& error, size_t) {
                                       if (!error) self->answer();
                                     });
    }
    void answer() {
      const Answer answer = server.make_answer_(request);
      Error ignored;
      boost::asio::write(socket, boost::asio::buffer(answer.bytes), ignored);
      if (!answer.close) read();
    }

    TestingServer& server;
    Socket socket;
    boost::beast::flat_buffer buffer;
    Request request;
  };

  void accept() {
    acceptor_.async_accept([this](const Error& error, Socket socket) {
      if (error) return;
      connections_.fetch_add(1);
      std::make_shared<Session>(*this, std::move(socket))->read();
      accept();
    });
  }

  MakeAnswer make_answer_;
  std::atomic<int> connections_{0};
  boost::asio::io_context io_{1};
  boost::asio::ip::tcp::acceptor acceptor_;
  std::jthread thread_;  // last: it uses everything above
};

}  // namespace kvasir::bench
