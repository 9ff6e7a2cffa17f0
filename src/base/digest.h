// SHA-256 over libcrypto. Thread: one owner. Allocates: constructor only; update, finish and reset
// do not, so a digest can live on the engine thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace kvasir::base {

using Sha256Bytes = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  void update(std::span<const std::byte> bytes);
  // The digest of everything since construction or the last finish(); starts anew.
  Sha256Bytes finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

std::string to_hex(std::span<const uint8_t> bytes);

}  // namespace kvasir::base
