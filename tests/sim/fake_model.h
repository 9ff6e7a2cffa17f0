// A model whose text exposes every mistake of the cache: what it stores for a token is a chained
// hash of all tokens so far, and its next token is a hash of every byte it reads. A wrong, stale,
// swapped or truncated block changes the text.
//
// It reads and writes only through kv::View, like the transformer. In a sliding-window group it
// reads what the window holds. Its KV dtype is f32; the 64 bits of a hash lie as raw words in the
// first two dimensions of a token's key and, inverted, of its value, in every layer and head.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "base/check.h"
#include "model/model.h"
#include "quant/kv_tile.h"

namespace kvasir::sim {

constexpr uint64_t kHashSeed = 0x9e3779b97f4a7c15ULL;

inline uint64_t mix(uint64_t hash, uint64_t value) {
  hash = (hash ^ value) * 0xff51afd7ed558ccdULL;
  return hash ^ (hash >> 29);
}

// One token's place in the text: everything before it is in `before`.
inline uint64_t chain(uint64_t before, TokenId token) {
  return mix(before, static_cast<uint64_t>(token) + 1);
}

// The next token after reading hashes in order; the same for the model and for the oracle.
inline void fill_logits(std::span<float> logits, uint64_t hash) {
  for (size_t i = 0; i < logits.size(); ++i) {
    hash = mix(hash, i);
    logits[i] = static_cast<float>(hash >> 40) * 0x1p-20F;
  }
}

class FakeModel final : public model::Model {
 public:
  FakeModel(uint32_t vocab_size, std::vector<kv::GroupShape> groups)
      : vocab_size_(vocab_size), groups_(std::move(groups)) {}

  uint32_t vocab_size() const override { return vocab_size_; }
  uint32_t layers() const override { return 1; }

  void forward(const model::Batch& batch, base::Span2D<float> logits) override {
    size_t logit_row = 0;
    for (model::SequenceRows& sequence : batch.sequences) {
      for (uint32_t i = 0; i < sequence.tokens; ++i) {
        const uint32_t row = sequence.first_row + i;
        const uint32_t position = sequence.first_position + i;
        write_row(sequence.view, position, batch.tokens[row]);
        ++sequence.kv_rows_written;
        ++tokens_computed_;
        if (logit_row < batch.logit_rows.size() && batch.logit_rows[logit_row] == row) {
          fill_logits(logits.row(logit_row++), read_all(sequence.view, position));
        }
      }
    }
    CHECK(logit_row == batch.logit_rows.size());
  }

  bool has_encoder() const override { return !groups_.empty() && is_cross(groups_.back()); }
  // What an encoder computes for a position depends on its whole input.
  void encode(const model::EncoderInput& input) override {
    const uint64_t whole = encoder_hash(input.tokens);
    for (const kv::GroupView& group : input.view.groups) {
      if (!is_cross(group.layout->group())) continue;
      for (uint32_t i = 0; i < input.tokens.size(); ++i) write_everywhere(group, i, mix(whole, i));
    }
    ++inputs_encoded_;
  }
  uint64_t inputs_encoded() const { return inputs_encoded_; }

  // The raw logits after `tokens`, without any cache: the oracle.
  void oracle_logits(std::span<const TokenId> tokens, std::span<float> logits,
                     std::span<const TokenId> encoder = {}) const {
    std::vector<uint64_t> chained;
    uint64_t own = kHashSeed;
    for (const TokenId token : tokens) chained.push_back(own = chain(own, token));
    uint64_t hash = kHashSeed;
    for (const kv::GroupShape& group : groups_) {
      if (is_cross(group)) {
        const uint64_t whole = encoder_hash(encoder);
        for (size_t i = 0; i < encoder.size(); ++i) hash = mix(hash, mix(whole, i));
        continue;
      }
      const size_t first = first_read(group, static_cast<uint32_t>(tokens.size()) - 1);
      for (size_t i = first; i < chained.size(); ++i) hash = mix(hash, chained[i]);
    }
    fill_logits(logits, hash);
  }
  TokenId next_token(std::span<const TokenId> tokens) const {
    std::vector<float> logits(vocab_size_);
    oracle_logits(tokens, logits);
    return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
  }
  uint64_t tokens_computed() const { return tokens_computed_; }

 private:
  static bool is_cross(const kv::GroupShape& group) { return group.kind == kv::GroupKind::kCross; }
  static uint64_t encoder_hash(std::span<const TokenId> tokens) {
    uint64_t hash = kHashSeed;
    for (const TokenId token : tokens) hash = chain(hash, token);
    return hash;
  }
  static uint32_t first_read(const kv::GroupShape& group, uint32_t position) {
    if (group.kind != kv::GroupKind::kSlidingWindow) return 0;
    return position + 1 - std::min(position + 1, group.window_tokens);
  }

  // Where the words of a token lie: key and value, dimensions 0 and 1.
  struct Place {
    std::byte* key;
    std::byte* value;
    size_t key_step;
  };
  static Place place(const kv::GroupView& view, uint32_t position, uint32_t layer, uint32_t head) {
    const kv::BlockLayout& layout = *view.layout;
    std::byte* block = view.block_of(position);
    const size_t slot = view.slot_of(position);
    return {
        block + layout.key_offset(layer, head) + slot * sizeof(float),
        block + layout.value_offset(layer, head) + slot * layout.group().head_dim * sizeof(float),
        layout.block_tokens() * sizeof(float)};
  }
  static void write(const Place& at, uint64_t own) {
    const auto low = static_cast<uint32_t>(own);
    const auto high = static_cast<uint32_t>(own >> 32);
    const uint64_t inverted = ~own;
    std::memcpy(at.key, &low, sizeof(low));
    std::memcpy(at.key + at.key_step, &high, sizeof(high));
    std::memcpy(at.value, &inverted, sizeof(inverted));
  }
  static uint64_t read(const Place& at) {
    uint32_t low = 0;
    uint32_t high = 0;
    uint64_t inverted = 0;
    std::memcpy(&low, at.key, sizeof(low));
    std::memcpy(&high, at.key + at.key_step, sizeof(high));
    std::memcpy(&inverted, at.value, sizeof(inverted));
    const uint64_t own = (uint64_t{high} << 32) | low;
    return own == ~inverted ? own : mix(own, inverted);  // a torn pair is seen, too
  }

  void write_row(const kv::View& view, uint32_t position, TokenId token) const {
    for (const kv::GroupView& group : view.groups) {
      CHECK(group.layout->group().dtype == quant::KvDtype::kF32);
      if (is_cross(group.layout->group())) continue;
      const uint64_t before = position == 0 ? kHashSeed : read(place(group, position - 1, 0, 0));
      write_everywhere(group, position, chain(before, token));
    }
  }
  static void write_everywhere(const kv::GroupView& group, uint32_t position, uint64_t own) {
    for (uint32_t layer = 0; layer < group.layout->group().layers; ++layer) {
      for (uint32_t head = 0; head < group.layout->group().kv_heads; ++head) {
        write(place(group, position, layer, head), own);
      }
    }
  }
  uint64_t read_all(const kv::View& view, uint32_t position) const {
    uint64_t hash = kHashSeed;
    for (const kv::GroupView& group : view.groups) {
      const kv::GroupShape& shape = group.layout->group();
      const uint32_t first = is_cross(shape) ? 0 : first_read(shape, position);
      const uint32_t end = is_cross(shape) ? group.tokens : position + 1;
      for (uint32_t p = first; p < end; ++p) {
        // One layer and head a row, another one for the next: all are read in the end.
        const uint32_t layer = position % shape.layers;
        const uint32_t head = position / shape.layers % shape.kv_heads;
        hash = mix(hash, read(place(group, p, layer, head)));
      }
    }
    return hash;
  }

  uint32_t vocab_size_;
  std::vector<kv::GroupShape> groups_;
  uint64_t tokens_computed_ = 0;
  uint64_t inputs_encoded_ = 0;
};

}  // namespace kvasir::sim
