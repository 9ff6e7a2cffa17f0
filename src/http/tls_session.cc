#include "http/tls_session.h"

#include <openssl/err.h>
#include <openssl/ssl.h>

#include <algorithm>
#include <cstddef>

#include "base/check.h"

namespace kvasir::http {
namespace {

constexpr size_t kRecordBytesMax = 16 << 10;  // of what one record carries

}  // namespace

void TlsSession::Free::operator()(SSL* session) const {
  SSL_free(session);
}

void TlsSession::Free::operator()(BIO_METHOD* method) const {
  BIO_meth_free(method);
}

// What there is, or "come again": the session never waits.
int TlsSession::read_channel(BIO* bio, char* data, int bytes_max) {
  std::string_view& input = static_cast<Channel*>(BIO_get_data(bio))->input;
  BIO_clear_retry_flags(bio);
  if (input.empty()) {
    BIO_set_retry_read(bio);
    return -1;
  }
  const size_t bytes = input.copy(data, static_cast<size_t>(std::max(bytes_max, 0)));
  input.remove_prefix(bytes);
  return static_cast<int>(bytes);
}

int TlsSession::write_channel(BIO* bio, const char* data, int bytes) {
  BIO_clear_retry_flags(bio);
  std::string& queue = static_cast<Channel*>(BIO_get_data(bio))->records.queue();
  queue.append(data, static_cast<size_t>(std::max(bytes, 0)));
  return bytes;
}

long TlsSession::control_channel(BIO* /*bio*/, int command, long /*number*/, void* /*pointer*/) {
  return command == BIO_CTRL_FLUSH ? 1 : 0;  // nothing is held back here
}

// All of these fail only for want of memory.
TlsSession::TlsSession(const TlsContext& context)
    : method_(BIO_meth_new(BIO_TYPE_SOURCE_SINK, "channel")), session_(SSL_new(context.native())) {
  CHECK(method_ != nullptr && session_ != nullptr);
  BIO_meth_set_read(method_.get(), &TlsSession::read_channel);
  BIO_meth_set_write(method_.get(), &TlsSession::write_channel);
  BIO_meth_set_ctrl(method_.get(), &TlsSession::control_channel);
  BIO* bio = BIO_new(method_.get());
  CHECK(bio != nullptr);
  BIO_set_data(bio, &channel_);
  BIO_set_init(bio, 1);
  SSL_set_bio(session_.get(), bio, bio);  // owns it from here
  SSL_set_accept_state(session_.get());
}

TlsSession::Input TlsSession::receive(std::string_view records, std::string& plain) {
  if (failed_) return Input::kFailed;
  channel_.input = records;
  const Input input = read_records(plain);
  channel_.input = {};  // it is the caller's
  failed_ = input == Input::kFailed;
  established_ = established_ || SSL_is_init_finished(session_.get()) == 1;
  ERR_clear_error();
  return input;
}

// Until OpenSSL has seen all of the input.
TlsSession::Input TlsSession::read_records(std::string& plain) {
  char buffer[kRecordBytesMax];
  while (true) {
    ERR_clear_error();  // OpenSSL takes anybody's for its own
    size_t bytes = 0;
    const int done = SSL_read_ex(session_.get(), buffer, sizeof buffer, &bytes);
    if (done == 1) {
      plain.append(buffer, bytes);
      continue;
    }
    switch (SSL_get_error(session_.get(), done)) {
      case SSL_ERROR_WANT_READ:
        return Input::kOpen;
      case SSL_ERROR_ZERO_RETURN:
        return Input::kEnded;
      default:
        return Input::kFailed;
    }
  }
}

bool TlsSession::send(std::string_view plain) {
  CHECK(established_);
  if (failed_) return false;
  ERR_clear_error();
  size_t bytes = 0;
  failed_ = SSL_write_ex(session_.get(), plain.data(), plain.size(), &bytes) != 1;
  ERR_clear_error();
  return !failed_;
}

void TlsSession::end() {
  const bool told = (SSL_get_shutdown(session_.get()) & SSL_SENT_SHUTDOWN) != 0;
  if (!established_ || failed_ || told) return;
  SSL_shutdown(session_.get());  // its answer only tells whether the client has ended as well
  ERR_clear_error();
}

}  // namespace kvasir::http
