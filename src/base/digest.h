// SHA-256 over libcrypto. Thread: one owner. Allocates: never, so a digest can live on the engine
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace kvasir::base {

using Sha256Bytes = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();

  void update(std::span<const std::byte> bytes);
  // The digest of everything since construction or the last finish(); starts anew.
  Sha256Bytes finish();

 private:
  alignas(8) std::array<std::byte, 128> state_;  // libcrypto's SHA256_CTX
};

std::string to_hex(std::span<const uint8_t> bytes);

}  // namespace kvasir::base
