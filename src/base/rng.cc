#include "base/rng.h"

namespace kvasir::base {

std::array<uint32_t, 4> random_bits(RngKey key, uint64_t counter) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53;
  constexpr uint64_t kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9;
  constexpr uint32_t kWeyl1 = 0xBB67AE85;
  constexpr int kRounds = 10;
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };

  std::array<uint32_t, 4> x = {low(counter), high(counter), low(key.choice), high(key.choice)};
  uint32_t k0 = low(key.seed);
  uint32_t k1 = high(key.seed);
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t a = kMultiplier0 * x[0];
    const uint64_t b = kMultiplier1 * x[2];
    x = {high(b) ^ x[1] ^ k0, low(b), high(a) ^ x[3] ^ k1, low(a)};
    k0 += kWeyl0;
    k1 += kWeyl1;
  }
  return x;
}

double random_unit(RngKey key, uint64_t counter) {
  const std::array<uint32_t, 4> bits = random_bits(key, counter);
  const uint64_t mantissa = ((uint64_t{bits[0]} << 32) | bits[1]) >> 11;
  return static_cast<double>(mantissa) * 0x1.0p-53;
}

}  // namespace kvasir::base
