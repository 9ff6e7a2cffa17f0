#include "http/byte_stream.h"

#include <boost/asio/error.hpp>
#include <boost/system/errc.hpp>

namespace kvasir::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;

constexpr size_t kSealedBytes = 64 << 10;  // turned into records at a time
// Beyond what is on its way anyway. Answers of TLS itself have a few bytes each.
constexpr size_t kFloodBytes = 2 * kSealedBytes;

}  // namespace

ByteStream::ByteStream(Socket socket, const TlsContext* tls)
    : socket_(std::move(socket)),
      tls_(tls == nullptr ? nullptr : std::make_unique<TlsSession>(*tls)) {}

ByteStream::ErrorCode ByteStream::prepare() {
  ErrorCode error;
  socket_.non_blocking(true, error);
  // Pieces of a stream are small, and must not wait for the client to confirm the one before.
  if (!error) socket_.set_option(tcp::no_delay(true), error);
  return error;
}

ByteStream::ErrorCode ByteStream::read(std::span<char> buffer, std::string& input) {
  ErrorCode error;
  const size_t bytes = socket_.read_some(asio::buffer(buffer.data(), buffer.size()), error);
  if (error) return error;
  const std::string_view come(buffer.data(), bytes);
  if (tls_ == nullptr) {
    input += come;
    return {};
  }
  switch (tls_->receive(come, input)) {
    case TlsSession::Input::kOpen:
      return {};
    case TlsSession::Input::kEnded:
      return asio::error::eof;
    case TlsSession::Input::kFailed:
      break;
  }
  return broken_tls();
}

ByteStream::ErrorCode ByteStream::skip(std::span<char> buffer) {
  ErrorCode error;
  socket_.read_some(asio::buffer(buffer.data(), buffer.size()), error);
  return error;
}

ByteStream::ErrorCode ByteStream::broken_tls() {
  return make_error_code(boost::system::errc::protocol_error);
}

bool ByteStream::is_broken_tls(ErrorCode error) {
  return error == broken_tls();
}

bool ByteStream::is_flooded() const {
  return tls_ != nullptr && tls_->records().bytes() > kFloodBytes;
}

// nullopt: TLS can not go on.
std::optional<std::string_view> ByteStream::next_to_send() {
  if (tls_ == nullptr) return outbox_.front();
  if (tls_->records().empty()) {
    const std::string_view plain = outbox_.front().substr(0, kSealedBytes);
    if (!tls_->send(plain)) return std::nullopt;
    outbox_.sent(plain.size());
  }
  return tls_->records().front();
}

void ByteStream::sent(size_t bytes) {
  (tls_ == nullptr ? outbox_ : tls_->records()).sent(bytes);
}

void ByteStream::queue_end() {
  if (tls_ != nullptr) tls_->end();
}

ByteStream::ErrorCode ByteStream::shutdown_send() {
  ErrorCode error;
  socket_.shutdown(asio::socket_base::shutdown_send, error);
  return error;
}

void ByteStream::try_end() {
  if (tls_ == nullptr || bytes_to_send() > 0) return;
  tls_->end();
  ErrorCode ignored;  // the client has gone, or is not owed more patience
  socket_.write_some(asio::buffer(tls_->records().front()), ignored);
}

void ByteStream::close() {
  ErrorCode ignored;
  socket_.close(ignored);
}

void ByteStream::reset() {
  ErrorCode ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

}  // namespace kvasir::http
