// What a FakeModel writes when it has no cache, one token after another: the oracle of the soak.
// The same hashes as FakeModel::oracle_logits, kept from token to token.
//
// Thread: one owner. Allocates: yes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "sim/fake_model.h"

namespace kvasir::sim {

class SoakOracle {
 public:
  SoakOracle(uint32_t vocab, std::vector<kv::GroupShape> groups)
      : logits_(vocab), groups_(std::move(groups)) {}

  uint32_t size() const { return static_cast<uint32_t>(own_.size()); }
  // Another text, read beside this input of the encoder.
  void restart(std::span<const TokenId> encoder) {
    truncate(0);
    uint64_t whole = kHashSeed;
    for (const TokenId token : encoder) whole = chain(whole, token);
    encoded_.clear();
    for (size_t i = 0; i < encoder.size(); ++i) encoded_.push_back(mix(whole, i));
  }
  void add(TokenId token) {
    own_.push_back(chain(own_.empty() ? kHashSeed : own_.back(), token));
    read_.push_back(mix(read_.empty() ? kHashSeed : read_.back(), own_.back()));
  }
  void truncate(uint32_t tokens) {
    own_.resize(tokens);
    read_.resize(tokens);
  }
  // After all tokens so far. Valid until the next call.
  std::span<const float> logits() {
    uint64_t hash = kHashSeed;
    bool first = true;
    for (const kv::GroupShape& group : groups_) {
      const bool whole = group.kind == kv::GroupKind::kFull;
      const size_t begin = whole ? 0 : size() - std::min(size(), group.window_tokens);
      if (group.kind == kv::GroupKind::kCross) {
        for (const uint64_t position : encoded_) hash = mix(hash, position);
      } else if (first && whole) {
        hash = read_.back();
      } else {
        for (size_t i = begin; i < own_.size(); ++i) hash = mix(hash, own_[i]);
      }
      first = false;
    }
    fill_logits(logits_, hash);
    return logits_;
  }

 private:
  std::vector<float> logits_;
  std::vector<kv::GroupShape> groups_;
  std::vector<uint64_t> encoded_;  // by position: what the encoder stores for it
  std::vector<uint64_t> own_;      // by position: what the model stores for it
  std::vector<uint64_t> read_;     // by position: all up to it, read in order
};

}  // namespace kvasir::sim
