// What the tests of attention share: sequences, and caches of their keys and values.
// Thread: any. Allocates: freely. Tests only.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <vector>

#include "kernels/testing.h"
#include "quant/kv_tile.h"

namespace kvasir::kernels::testing {

using Attend = void (*)(const AttentionArgs& args);

// A test in each order: the reference of the same one is the definition.
class AttentionTest : public ::testing::TestWithParam<AttentionOrder> {
 protected:
  static Attend kernel(Isa isa) { return find_kernels(isa)->attend_in(GetParam()); }

  base::ScopedFpEnv fp_env_;
};

constexpr std::array kAttentionOrders{AttentionOrder::kPairs, AttentionOrder::kTiles};
constexpr std::array kKvDtypes{quant::KvDtype::kF32, quant::KvDtype::kBF16, quant::KvDtype::kInt8};

inline std::string order_of(const ::testing::TestParamInfo<AttentionOrder>& tested) {
  return std::string(attention_order_name(tested.param));
}

constexpr float kScale = 0.4F;

struct Shape {
  quant::KvDtype dtype = quant::KvDtype::kBF16;
  uint32_t head_dim = 64;
  uint32_t heads = 3;
  uint32_t positions = 40;  // in the cache when everything is stored
  uint32_t window = 0;
  float soft_cap = 0.0F;
};

// Queries, keys and values of a sequence, before they are stored anywhere.
struct Sequence {
  Sequence(Random& random, const Shape& of_shape)
      : shape(of_shape),
        queries(random.vector(size_t{shape.positions} * shape.heads * shape.head_dim, -3.0F, 3.0F)),
        keys(random.vector(size_t{shape.positions} * shape.head_dim, -1.0F, 1.0F)),
        values(random.vector(size_t{shape.positions} * shape.head_dim, -1.0F, 1.0F)) {}

  size_t token_size() const { return size_t{shape.heads} * shape.head_dim; }
  std::span<const float> key(size_t position) const {
    return std::span(keys).subspan(position * shape.head_dim, shape.head_dim);
  }
  std::span<const float> value(size_t position) const {
    return std::span(values).subspan(position * shape.head_dim, shape.head_dim);
  }

  Shape shape;
  std::vector<float> queries;
  std::vector<float> keys;
  std::vector<float> values;
};

// A cache in shuffled blocks, with room for another tile before ours in every block.
class Cache {
 public:
  Cache(const Sequence& sequence, uint32_t block_tokens)
      : tile_{.dtype = sequence.shape.dtype,
              .head_dim = sequence.shape.head_dim,
              .block_tokens = block_tokens} {
    const size_t count = (sequence.shape.positions + block_tokens - 1) / block_tokens;
    const size_t block_bytes = 3 * tile_.tile_bytes();
    memory_ = base::AlignedBuffer::create(count * block_bytes).value();
    for (size_t i = 0; i < count; ++i) {
      blocks_.push_back(memory_.data() + (count - 1 - i) * block_bytes);
    }
  }

  void fill(const std::byte byte) { std::fill_n(memory_.data(), memory_.size_bytes(), byte); }
  void store(const Sequence& sequence, size_t first, size_t last) {
    for (size_t p = first; p < last; ++p) {
      std::byte* block = blocks_[p / tile_.block_tokens];
      const auto slot = static_cast<uint32_t>(p % tile_.block_tokens);
      quant::store_key(tile_, sequence.key(p), slot, block + tile_.tile_bytes());
      quant::store_value(tile_, sequence.value(p), slot, block + 2 * tile_.tile_bytes());
    }
  }

  // Drops the blocks that hold nothing but positions before `first`.
  void forget(size_t first) { std::fill_n(blocks_.begin(), first / tile_.block_tokens, nullptr); }

  // Positions [first, last) of the sequence.
  AttentionArgs args(const Sequence& sequence, size_t first, size_t last, float* out) const {
    return {.tile = tile_,
            .blocks = blocks_.data(),
            .key_offset = tile_.tile_bytes(),
            .value_offset = 2 * tile_.tile_bytes(),
            .first_position = static_cast<uint32_t>(first),
            .tokens = static_cast<uint32_t>(last - first),
            .heads = sequence.shape.heads,
            .token_stride = sequence.token_size(),
            .queries = sequence.queries.data() + first * sequence.token_size(),
            .out = out,
            .scale = kScale,
            .window = sequence.shape.window,
            .soft_cap = sequence.shape.soft_cap};
  }
  std::vector<float> attend(Attend kernel, const Sequence& sequence, size_t first,
                            size_t last) const {
    std::vector<float> out((last - first) * sequence.token_size());
    kernel(args(sequence, first, last, out.data()));
    return out;
  }

 private:
  quant::KvTileShape tile_;
  base::AlignedBuffer memory_;
  std::vector<std::byte*> blocks_;
};

inline Cache full_cache(const Sequence& sequence, uint32_t block_tokens) {
  Cache cache(sequence, block_tokens);
  cache.store(sequence, 0, sequence.shape.positions);
  return cache;
}

// The first key that the query at `position` sees.
inline size_t first_in_window(const Shape& shape, size_t position) {
  return shape.window == 0 ? 0 : position + 1 - std::min<size_t>(position + 1, shape.window);
}

}  // namespace kvasir::kernels::testing
