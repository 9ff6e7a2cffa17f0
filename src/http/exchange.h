// One HTTP request and the way to its answer: all that handlers see of the network.
//
// Thread: the calls that answer come one after another, from any thread; callbacks run on the I/O
// thread, never inside a call of this class.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kvasir::http {

// Who asks, as far as authentication can tell.
struct Caller {
  uint32_t tenant = 0;  // index of the key's owner; 0: nobody has keys here
  bool admin = false;   // may empty the cache and see all of it
};

struct Head {
  std::string method;  // "GET"
  std::string path;    // "/v1/models": without query, percent-encoding left alone
  std::string query;   // behind '?'; empty: none
  std::vector<std::pair<std::string, std::string>> fields;  // names in lower case
  bool admin_listener = false;  // it came in by the listener for operators

  // The first value of a field, by its name in lower case; empty: absent.
  std::string_view field(std::string_view name) const;
};

struct Request {
  Head head;
  std::string body;
  std::string id;  // of the request: the client's x-request-id where it is well-formed
  Caller caller;
};

struct Response {
  unsigned status = 200;
  std::string body;
  std::string content_type = "application/json";
  std::vector<std::pair<std::string, std::string>> fields;  // further ones: Retry-After ...
};

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const Request& request() const = 0;

  // The whole answer; the last call.
  virtual void respond(Response response) = 0;

  // Or an answer in pieces: begin_stream, write any number of times, end_stream. Writing never
  // blocks: what the client has not taken is kept, and on_slow tells when it is much.
  virtual void begin_stream(std::string_view content_type) = 0;
  virtual void write(std::string piece) = 0;
  virtual void end_stream() = 0;

  // The client has gone, or was dropped because it reads too slowly, before the answer was
  // complete. At most once. Set before answering.
  virtual void on_gone(std::function<void()> callback) = 0;
  // true: more than the high-water mark waits to be read; false: it has been read. They alternate.
  virtual void on_slow(std::function<void(bool slow)> callback) = 0;
};

}  // namespace kvasir::http
