#include "http/tls_context.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

namespace kvasir::http {
namespace {

// For TLS 1.2; those of 1.3 are all good. Authenticated encryption, keys of this connection only.
constexpr const char* kCiphers = "ECDHE+AESGCM:ECDHE+CHACHA20";

struct FreeBio {
  void operator()(BIO* bio) const { BIO_free(bio); }
};
struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
};

// Why OpenSSL's last call failed.
std::string reason() {
  const char* said = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return said == nullptr ? "no reason given" : said;
}

// OpenSSL would ask at the terminal. `asked`: a bool to set, or nothing.
int refuse_passphrase(char* /*buffer*/, int /*bytes_max*/, int /*writing*/, void* asked) {
  if (asked != nullptr) *static_cast<bool*>(asked) = true;
  return -1;
}

base::Status check_readable(const std::string& path) {
  std::ifstream file(path);
  if (file) file.peek();  // a folder can be opened, but not read
  if (file.is_open() && !file.bad()) return {};
  return base::bad_input(fmt::format("{}: can not be read: {}", path, std::strerror(errno)));
}

base::Status configure(SSL_CTX* context) {
  SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
                                   SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION);
  // Idle connections are many: they keep no buffers, and clients keep the sessions to resume.
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_default_passwd_cb(context, refuse_passphrase);
  if (SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
      SSL_CTX_set_cipher_list(context, kCiphers) == 1) {
    return {};
  }
  return base::runtime_error("can not set TLS up: " + reason());
}

base::Status use_certificates(SSL_CTX* context, const std::string& path) {
  RETURN_IF_ERROR(check_readable(path));
  if (SSL_CTX_use_certificate_chain_file(context, path.c_str()) == 1) return {};
  return base::bad_input(
      fmt::format("{}: holds no certificates that can be used: {}; give PEM, the server's own "
                  "certificate first",
                  path, reason()));
}

// Requires: the certificate is there.
base::Status use_key(SSL_CTX* context, const std::string& path) {
  RETURN_IF_ERROR(check_readable(path));
  const std::unique_ptr<BIO, FreeBio> file(BIO_new_file(path.c_str(), "r"));
  if (file == nullptr) return base::bad_input(path + ": can not be read: " + reason());
  bool asked = false;
  const std::unique_ptr<EVP_PKEY, FreeKey> key(
      PEM_read_bio_PrivateKey(file.get(), nullptr, refuse_passphrase, &asked));
  if (key == nullptr && asked) {
    return base::bad_input(path + ": the key is encrypted; give one without a passphrase");
  }
  if (key == nullptr) {
    return base::bad_input(
        fmt::format("{}: holds no private key that can be used: {}; give PEM", path, reason()));
  }
  if (X509_check_private_key(SSL_CTX_get0_certificate(context), key.get()) != 1) {
    return base::bad_input(path + ": the key is not that of the certificate; give its own");
  }
  if (SSL_CTX_use_PrivateKey(context, key.get()) == 1) return {};
  return base::bad_input(fmt::format("{}: the key can not be used: {}", path, reason()));
}

}  // namespace

void TlsContext::Free::operator()(SSL_CTX* context) const {
  SSL_CTX_free(context);
}

TlsContext::TlsContext(Context context) : context_(std::move(context)) {}

base::Result<std::shared_ptr<const TlsContext>> TlsContext::load(
    const std::string& certificate_path, const std::string& key_path) {
  ERR_clear_error();
  Context context(SSL_CTX_new(TLS_server_method()));
  if (context == nullptr) return base::runtime_error("can not set TLS up: " + reason());
  RETURN_IF_ERROR(configure(context.get()));
  RETURN_IF_ERROR(use_certificates(context.get(), certificate_path));
  RETURN_IF_ERROR(use_key(context.get(), key_path));
  ERR_clear_error();  // what others did not mean to leave behind would be taken for a failure
  return std::shared_ptr<const TlsContext>(new TlsContext(std::move(context)));
}

}  // namespace kvasir::http
