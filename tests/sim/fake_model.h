// A model whose text exposes every mistake of the cache: what it stores for a token is a hash of
// the token and of all that it reads before it, and its next token is a hash of every byte it
// reads. A wrong, stale, swapped or truncated block changes the text.
//
// It reads and writes only through kv::View, like the transformer.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "base/check.h"
#include "model/model.h"
#include "quant/kv_tile.h"

namespace kvasir::sim {

// FNV-1a, 64 bits: weak but fast, and any changed byte changes it.
inline uint64_t mix(uint64_t hash, uint64_t value) {
  for (int i = 0; i < 8; ++i) {
    hash = (hash ^ ((value >> (8 * i)) & 0xff)) * 0x100000001b3ULL;
  }
  return hash;
}

class FakeModel final : public model::Model {
 public:
  explicit FakeModel(uint32_t vocab_size) : vocab_size_(vocab_size) {}

  uint32_t vocab_size() const override { return vocab_size_; }
  uint32_t layers() const override { return 1; }

  void forward(const model::Batch& batch, base::Span2D<float> logits) override {
    size_t logit_row = 0;
    for (model::SequenceRows& sequence : batch.sequences) {
      for (uint32_t i = 0; i < sequence.tokens; ++i) {
        const uint32_t row = sequence.first_row + i;
        const uint32_t position = sequence.first_position + i;
        const uint64_t before = read_all(sequence.view, position);
        const uint64_t own = mix(before, static_cast<uint64_t>(batch.tokens[row]) + 1);
        write(sequence.view, position, own);
        ++sequence.kv_rows_written;
        if (logit_row < batch.logit_rows.size() && batch.logit_rows[logit_row] == row) {
          set_logits(logits.row(logit_row++), mix(own, position));
        }
      }
    }
    CHECK(logit_row == batch.logit_rows.size());
  }

  // The token after `tokens`, without any cache: the oracle.
  TokenId next_token(const std::vector<TokenId>& tokens) const {
    std::vector<uint64_t> stored;
    uint64_t own = 0;
    for (const TokenId token : tokens) {
      uint64_t before = kSeed;
      for (const uint64_t value : stored) before = mix(before, value);
      own = mix(before, static_cast<uint64_t>(token) + 1);
      stored.push_back(as_read(own));
    }
    return static_cast<TokenId>(mix(own, tokens.size() - 1) % vocab_size_);
  }

 private:
  static constexpr uint32_t kHeadDim = 16;
  static constexpr uint64_t kSeed = 0xcbf29ce484222325ULL;

  // The hash lies byte by byte in the token's key row and, inverted, in its value row: numbers from
  // 0 to 255, which every KV dtype holds exactly.
  static uint64_t read(const kv::View& view, uint32_t position) {
    const kv::BlockLayout& layout = *view.layout;
    const std::byte* block = view.block_of(position);
    std::array<float, kHeadDim> key{};
    std::array<float, kHeadDim> value{};
    quant::load_key(layout.tile(), block + layout.key_offset(0, 0), view.slot_of(position), key);
    quant::load_value(layout.tile(), block + layout.value_offset(0, 0), view.slot_of(position),
                      value);
    uint64_t hash = kSeed;
    for (uint32_t i = 0; i < kHeadDim; ++i) {
      hash = hash * 31 + static_cast<uint64_t>(key[i]) * 257 + static_cast<uint64_t>(value[i]);
    }
    return hash;
  }
  static void write(const kv::View& view, uint32_t position, uint64_t own) {
    const kv::BlockLayout& layout = *view.layout;
    std::byte* block = view.block_of(position);
    std::array<float, kHeadDim> key{};
    std::array<float, kHeadDim> value{};
    for (uint32_t i = 0; i < 8; ++i) {
      const auto byte = static_cast<float>((own >> (8 * i)) & 0xff);
      key[i] = byte;
      value[i] = 255.0F - byte;
    }
    quant::store_key(layout.tile(), key, view.slot_of(position), block + layout.key_offset(0, 0));
    quant::store_value(layout.tile(), value, view.slot_of(position),
                       block + layout.value_offset(0, 0));
  }
  // What read() gives for a written hash.
  static uint64_t as_read(uint64_t own) {
    uint64_t hash = kSeed;
    for (uint32_t i = 0; i < kHeadDim; ++i) {
      const uint64_t byte = i < 8 ? (own >> (8 * i)) & 0xff : 0;
      hash = hash * 31 + byte * 257 + (i < 8 ? 255 - byte : 0);
    }
    return hash;
  }
  static uint64_t read_all(const kv::View& view, uint32_t positions) {
    uint64_t hash = kSeed;
    for (uint32_t p = 0; p < positions; ++p) hash = mix(hash, read(view, p));
    return hash;
  }
  void set_logits(std::span<float> logits, uint64_t hash) const {
    std::fill(logits.begin(), logits.end(), 0.0F);
    logits[hash % vocab_size_] = 1.0F;
  }

  uint32_t vocab_size_;
};

}  // namespace kvasir::sim
