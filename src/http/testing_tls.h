// TLS for tests: certificates made on the spot, and the client's side of a connection. For tests
// only: what goes wrong here ends the program.
//
// Thread: one owner. Allocates: yes.
#pragma once

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/check.h"
#include "http/tls_context.h"

namespace kvasir::http::testing {

struct FreeTls {
  void operator()(BIO* bio) const { BIO_free(bio); }
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
};
template <typename T>
using OwnedTls = std::unique_ptr<T, FreeTls>;

// ---- certificates ----

inline OwnedTls<EVP_PKEY> make_key() {
  OwnedTls<EVP_PKEY> key(EVP_PKEY_Q_keygen(nullptr, nullptr, "EC", "P-256"));
  CHECK(key != nullptr);
  return key;
}

inline std::string content_of(BIO* bio) {
  char* content = nullptr;
  const long bytes = BIO_get_mem_data(bio, &content);
  return {content, static_cast<size_t>(bytes)};
}

// `passphrase`: nullptr: not encrypted.
inline std::string key_pem(EVP_PKEY* key, const char* passphrase = nullptr) {
  const OwnedTls<BIO> bio(BIO_new(BIO_s_mem()));
  const int bytes = passphrase == nullptr ? 0 : static_cast<int>(std::strlen(passphrase));
  CHECK(PEM_write_bio_PKCS8PrivateKey(bio.get(), key,
                                      passphrase == nullptr ? nullptr : EVP_aes_128_cbc(),
                                      passphrase, bytes, nullptr, nullptr) == 1);
  return content_of(bio.get());
}

// Of localhost, signed by itself.
inline std::string certificate_pem(EVP_PKEY* key) {
  const OwnedTls<X509> certificate(X509_new());
  X509* made = certificate.get();
  CHECK(X509_set_version(made, X509_VERSION_3) == 1);
  CHECK(ASN1_INTEGER_set(X509_get_serialNumber(made), 1) == 1);
  CHECK(X509_gmtime_adj(X509_getm_notBefore(made), -3600) != nullptr);
  CHECK(X509_gmtime_adj(X509_getm_notAfter(made), 24 * 3600) != nullptr);
  CHECK(X509_set_pubkey(made, key) == 1);
  X509_NAME* name = X509_get_subject_name(made);
  const auto* text = reinterpret_cast<const unsigned char*>("localhost");
  CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, text, -1, -1, 0) == 1);
  CHECK(X509_set_issuer_name(made, name) == 1);
  CHECK(X509_sign(made, key, EVP_sha256()) > 0);
  const OwnedTls<BIO> bio(BIO_new(BIO_s_mem()));
  CHECK(PEM_write_bio_X509(bio.get(), made) == 1);
  return content_of(bio.get());
}

class TempFile {
 public:
  explicit TempFile(std::string_view content) : path_(::testing::TempDir() + "kvasir-tls-XXXXXX") {
    const int fd = ::mkstemp(path_.data());
    CHECK(fd >= 0);
    CHECK(::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size()));
    ::close(fd);
  }
  TempFile(const TempFile&) = delete;
  TempFile& operator=(const TempFile&) = delete;
  ~TempFile() { ::unlink(path_.c_str()); }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// `issuers`: certificates in PEM to show as well.
inline std::shared_ptr<const TlsContext> make_tls(const std::string& issuers = "") {
  const OwnedTls<EVP_PKEY> key = make_key();
  const TempFile certificate_file(certificate_pem(key.get()) + issuers);
  const TempFile key_file(key_pem(key.get()));
  auto loaded = TlsContext::load(certificate_file.path(), key_file.path());
  CHECK(loaded.has_value());
  return *loaded;
}

// ---- clients ----

// `version`: the only one to offer, however old; nullopt: what OpenSSL thinks right.
inline OwnedTls<SSL> make_client_session(std::optional<int> version = std::nullopt) {
  const OwnedTls<SSL_CTX> context(SSL_CTX_new(TLS_client_method()));
  CHECK(context != nullptr);
  if (version) {
    CHECK(SSL_CTX_set_cipher_list(context.get(), "DEFAULT@SECLEVEL=0") == 1);
    CHECK(SSL_CTX_set_min_proto_version(context.get(), *version) == 1);
    CHECK(SSL_CTX_set_max_proto_version(context.get(), *version) == 1);
  }
  OwnedTls<SSL> session(SSL_new(context.get()));
  CHECK(session != nullptr);
  SSL_set_connect_state(session.get());
  return session;
}

// TLS on a connected socket that blocks.
class ClientTls {
 public:
  ClientTls(int fd, std::optional<int> version) : session_(make_client_session(version)) {
    std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes without asking not to be killed
    CHECK(SSL_set_fd(session_.get(), fd) == 1);
  }

  // false: the server does not agree.
  bool handshake() {
    ERR_clear_error();
    return SSL_connect(session_.get()) == 1;
  }
  // How many bytes it has taken; 0: the connection is gone.
  ssize_t send(std::string_view bytes) {
    ERR_clear_error();
    size_t sent = 0;
    SSL_write_ex(session_.get(), bytes.data(), bytes.size(), &sent);
    return static_cast<ssize_t>(sent);
  }
  // 0: there will be no more.
  ssize_t receive(std::span<char> buffer) {
    ERR_clear_error();
    size_t bytes = 0;
    const int done = SSL_read_ex(session_.get(), buffer.data(), buffer.size(), &bytes);
    const int error = SSL_get_error(session_.get(), done);
    CHECK(error != SSL_ERROR_WANT_READ);  // silence is no answer
    told_end_ = told_end_ || error == SSL_ERROR_ZERO_RETURN;
    return static_cast<ssize_t>(bytes);
  }
  void send_end() {
    ERR_clear_error();
    SSL_shutdown(session_.get());
  }
  // Whether the server has said that it sends no more.
  bool told_end() const { return told_end_; }
  SSL* native() { return session_.get(); }

 private:
  OwnedTls<SSL> session_;
  bool told_end_ = false;
};

}  // namespace kvasir::http::testing
