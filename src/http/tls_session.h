// The server's side of one TLS connection, as a function of bytes: records come in, records go out.
// Who carries them, and how long that may take, is not its concern.
//
// Thread: one owner. Allocates: the session, about 17 KiB while it is idle; the records that wait
// to be carried.
#pragma once

#include <openssl/bio.h>
#include <openssl/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "http/outbox.h"
#include "http/tls_context.h"

namespace kvasir::http {

class TlsSession {
 public:
  enum class Input : uint8_t {
    kOpen,    // more may come
    kEnded,   // the client has said that it sends no more
    kFailed,  // that was no TLS, or none that is taken here; the session can not go on
  };

  explicit TlsSession(const TlsContext& context);
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  // Takes what the client has sent, in pieces of any size, and appends what it carries to `plain`.
  Input receive(std::string_view records, std::string& plain);
  // The handshake is complete.
  bool established() const { return established_; }
  // Appends it to records(). Requires: established(). false: the session can not go on.
  [[nodiscard]] bool send(std::string_view plain);
  // Tells the client that no more will come (close_notify), if it can be told.
  void end();

  // To be carried to the client. The session adds to them whatever it is asked to do.
  Outbox& records() { return channel_.records; }
  const Outbox& records() const { return channel_.records; }

 private:
  // The network as OpenSSL sees it.
  struct Channel {
    std::string_view input;  // what receive() was given and OpenSSL has not read
    Outbox records;
  };
  struct Free {
    void operator()(SSL* session) const;
    void operator()(BIO_METHOD* method) const;
  };

  static int read_channel(BIO* bio, char* data, int bytes_max);
  static int write_channel(BIO* bio, const char* data, int bytes);
  static long control_channel(BIO* bio, int command, long number, void* pointer);

  Input read_records(std::string& plain);

  Channel channel_;
  const std::unique_ptr<BIO_METHOD, Free> method_;  // outlives session_, which uses it
  const std::unique_ptr<SSL, Free> session_;
  bool established_ = false;
  bool failed_ = false;
};

}  // namespace kvasir::http
