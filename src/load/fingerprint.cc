#include "load/fingerprint.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <string>
#include <vector>

#include "base/checked_math.h"

namespace kvasir::load {
namespace {

constexpr size_t kChunkBytes = size_t{4} << 20;

// Everything of the configuration that keys and values depend on; floats by their bits.
std::string describe(const model::ModelConfig& config) {
  std::vector<uint32_t> factors;
  factors.reserve(config.rope.frequency_factors.size());
  for (const float factor : config.rope.frequency_factors) {
    factors.push_back(std::bit_cast<uint32_t>(factor));
  }
  return fmt::format(
      "{} vocab={} layers={} embedding={} feed_forward={} heads={}/{}x{} "
      "epsilon={:x} scale={:x} rope={}:{:x}:{:x}:{:x}",
      config.architecture, config.vocab_size, config.layers, config.embedding_length,
      config.feed_forward_length, config.heads, config.kv_heads, config.head_dim,
      std::bit_cast<uint32_t>(config.rms_epsilon), std::bit_cast<uint32_t>(config.attention_scale),
      config.rope.rotated_dims, std::bit_cast<uint32_t>(config.rope.base),
      std::bit_cast<uint32_t>(config.rope.linear_factor), fmt::join(factors, ","));
}

}  // namespace

base::Sha256Bytes fingerprint_of(const model::ModelConfig& config,
                                 std::span<const std::byte> packed_weights,
                                 base::ThreadPool* pool) {
  std::vector<base::Sha256Bytes> chunks(base::div_ceil(packed_weights.size(), kChunkBytes));
  const auto digest_range = [&](size_t, base::Range range) {
    for (size_t i = range.begin; i < range.end; ++i) {
      const size_t begin = i * kChunkBytes;
      base::Sha256 hash;
      hash.update(
          packed_weights.subspan(begin, std::min(kChunkBytes, packed_weights.size() - begin)));
      chunks[i] = hash.finish();
    }
  };
  if (pool != nullptr) {
    pool->for_ranges(chunks.size(), digest_range);
  } else {
    digest_range(0, {.begin = 0, .end = chunks.size()});
  }
  const std::string shape = describe(config);
  base::Sha256 hash;
  hash.update(std::as_bytes(std::span(shape)));
  hash.update(std::as_bytes(std::span(chunks)));
  return hash.finish();
}

}  // namespace kvasir::load
