#include "base/digest.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace kvasir::base {

struct Sha256::Context {
  EVP_MD* algorithm = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  EVP_MD_CTX* state = EVP_MD_CTX_new();
  ~Context() {
    EVP_MD_CTX_free(state);
    EVP_MD_free(algorithm);
  }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  CHECK(context_->algorithm != nullptr);
  CHECK(context_->state != nullptr);
  CHECK(EVP_DigestInit_ex2(context_->state, context_->algorithm, nullptr) == 1);
}
Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::update(std::span<const std::byte> bytes) {
  CHECK(EVP_DigestUpdate(context_->state, bytes.data(), bytes.size()) == 1);
}

Sha256Bytes Sha256::finish() {
  Sha256Bytes digest{};
  unsigned size = 0;
  CHECK(EVP_DigestFinal_ex(context_->state, digest.data(), &size) == 1);
  CHECK(size == digest.size());
  CHECK(EVP_DigestInit_ex2(context_->state, nullptr, nullptr) ==
        1);  // same algorithm, no allocation
  return digest;
}

std::string to_hex(std::span<const uint8_t> bytes) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string hex;
  hex.reserve(bytes.size() * 2);
  for (const uint8_t byte : bytes) {
    hex.push_back(kDigits[byte >> 4]);
    hex.push_back(kDigits[byte & 15]);
  }
  return hex;
}

}  // namespace kvasir::base
