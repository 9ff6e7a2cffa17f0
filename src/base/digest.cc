// The EVP interface allocates a context for every message; the plain one, though deprecated, keeps
// its state where we put it.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/digest.h"

#include <openssl/sha.h>

#include <new>

#include "base/check.h"

namespace kvasir::base {
namespace {

SHA256_CTX* context(std::array<std::byte, 128>& state) {
  static_assert(sizeof(SHA256_CTX) <= 128 && alignof(SHA256_CTX) <= 8);
  return std::launder(reinterpret_cast<SHA256_CTX*>(state.data()));
}

}  // namespace

Sha256::Sha256() {
  new (state_.data()) SHA256_CTX{};
  CHECK(SHA256_Init(context(state_)) == 1);
}

void Sha256::update(std::span<const std::byte> bytes) {
  CHECK(SHA256_Update(context(state_), bytes.data(), bytes.size()) == 1);
}

Sha256Bytes Sha256::finish() {
  Sha256Bytes digest{};
  CHECK(SHA256_Final(digest.data(), context(state_)) == 1);
  CHECK(SHA256_Init(context(state_)) == 1);
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
