// What the tests of the cache share: small shapes, digests that collide, and sequences that write
// recognisable rows through the view and read them back.
//
// Thread: one owner. Allocates: freely.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/check.h"
#include "kv/cache.h"
#include "quant/kv_tile.h"

namespace kvasir::kv {

constexpr uint32_t kTestBlockTokens = 16;
constexpr uint32_t kTestHeadDim = 16;
constexpr GroupShape kTestGroup{
    .layers = 1, .kv_heads = 1, .head_dim = kTestHeadDim, .dtype = quant::KvDtype::kF32};
constexpr GroupShape kTestWindowGroup{.layers = 2,
                                      .kv_heads = 1,
                                      .head_dim = kTestHeadDim,
                                      .dtype = quant::KvDtype::kF32,
                                      .kind = GroupKind::kSlidingWindow,
                                      .window_tokens = 24};
// Slabs of four blocks of kTestGroup or two of kTestWindowGroup.
constexpr uint64_t kTestSlabBytes = 8192;

// Keeps 8 bits: collisions everywhere.
inline Digest eight_bit_digest(const Digest& previous, std::span<const TokenId> words) {
  Digest digest = sha256_chain(previous, words);
  std::fill(digest.begin() + 1, digest.end(), uint8_t{0});
  return digest;
}

// One full group with so many blocks.
inline CacheOptions test_options(uint32_t blocks) {
  return {.groups = {kTestGroup},
          .block_tokens = kTestBlockTokens,
          .budget_bytes = blocks * BlockLayout(kTestGroup, kTestBlockTokens).block_bytes(),
          .sequences_max = 8,
          .sequence_tokens_max = 128,
          .verify = true};
}

// A full and a sliding-window group that share so many slabs.
inline CacheOptions windowed_options(uint32_t slabs) {
  CacheOptions options = test_options(1);
  options.groups = {kTestGroup, kTestWindowGroup};
  options.budget_bytes = slabs * kTestSlabBytes;
  options.slab_unit_bytes = kTestSlabBytes;
  options.step_tokens_max = 32;
  return options;
}

inline std::unique_ptr<Cache> make_cache(const CacheOptions& options) {
  auto cache = Cache::create(options);
  CHECK(cache.has_value());
  return *std::move(cache);
}

// `count` different tokens from `first` on.
inline std::vector<TokenId> counting(uint32_t count, TokenId first = 0) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = first++;
  return tokens;
}

inline std::vector<TokenId> operator+(std::vector<TokenId> a, const std::vector<TokenId>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

inline std::vector<TokenId> prefix(std::span<const TokenId> tokens, size_t count) {
  return {tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(count)};
}

inline CacheDomain tenant(uint8_t id) {
  CacheDomain domain;
  domain.tenant[0] = id;
  return domain;
}

// The first position that the row after `tokens` others reads.
inline uint32_t first_read(const GroupShape& group, uint32_t tokens) {
  if (group.kind != GroupKind::kSlidingWindow) return 0;
  return tokens + 1 - std::min(tokens + 1, group.window_tokens);
}

// A sequence of the cache whose row at a position is a hash of all tokens up to it.
class TestSequence {
 public:
  // As Cache::open(). Keeps a copy of the prompt.
  static std::optional<TestSequence> open(Cache& cache, SequenceSpec spec) {
    spec.tokens_max = std::max<uint32_t>(spec.tokens_max, kTokensMax);
    std::optional<Opened> opened = cache.open(spec);
    if (!opened) return std::nullopt;
    TestSequence sequence(cache, std::move(opened->lease), spec.domain);
    sequence.match = opened->match;
    sequence.prompt = prefix(spec.prompt, spec.prompt.size());
    sequence.tokens = prefix(spec.prompt, opened->match.tokens_cached);
    return sequence;
  }
  // Opens and computes the whole prompt. Requires: there is room.
  static TestSequence run(Cache& cache, const SequenceSpec& spec) {
    std::optional<TestSequence> sequence = open(cache, spec);
    CHECK(sequence.has_value());
    CHECK(sequence->compute_prompt());
    return *std::move(sequence);
  }
  static TestSequence run(Cache& cache, const std::vector<TokenId>& tokens) {
    return run(cache, SequenceSpec{.prompt = tokens});
  }

  // Reserves, writes and appends; false: there was no room.
  bool extend(std::span<const TokenId> more, uint32_t keep_back = 0) {
    const auto first = static_cast<uint32_t>(tokens.size());
    const auto end = first + static_cast<uint32_t>(more.size());
    std::optional<Reservation> reservation = cache_->reserve(lease, end, keep_back);
    if (!reservation) return false;
    CHECK(slots_are_zero_from(first));
    tokens.insert(tokens.end(), more.begin(), more.end());
    for (uint32_t position = first; position < end; ++position) write_row(position);
    cache_->append(*std::move(reservation), more);
    return true;
  }
  bool compute_prompt() {
    return tokens.size() >= prompt.size() || extend(std::span(prompt).subspan(tokens.size()));
  }
  std::optional<TestSequence> fork() {
    std::optional<Lease> copy = cache_->fork(lease);
    if (!copy) return std::nullopt;
    TestSequence sequence(*cache_, *std::move(copy), domain);
    sequence.tokens = tokens;
    sequence.prompt = tokens;
    return sequence;
  }
  void truncate(uint32_t count) {
    cache_->truncate(lease, count);
    tokens.resize(count);
    prompt = tokens;
  }
  void discard() { cache_->discard(std::move(lease)); }

  // Reads every byte that the next row would read.
  bool bytes_are_right() const {
    const View view = cache_->view(lease);
    const std::vector<uint64_t> hashes = all_hashes();
    for (const GroupView& group : view.groups) {
      const uint32_t first =
          first_read(group.layout->group(), static_cast<uint32_t>(tokens.size()));
      for (uint32_t position = first; position < tokens.size(); ++position) {
        if (!row_is(group, position, hashes[position])) return false;
      }
    }
    return true;
  }
  uint32_t blocks_held() const { return cache_->blocks_held(lease); }
  const std::byte* block(uint32_t index) const {
    return cache_->view(lease).groups[0].blocks[index];
  }

  Lease lease;
  CacheDomain domain;
  MatchReport match;
  std::vector<TokenId> prompt;
  std::vector<TokenId> tokens;  // whose rows have been written or were found

 private:
  static constexpr uint32_t kTokensMax = 112;
  using Row = std::array<float, kTestHeadDim>;

  TestSequence(Cache& cache, Lease its_lease, const CacheDomain& its_domain)
      : lease(std::move(its_lease)), domain(its_domain), cache_(&cache) {}

  static uint64_t mix(uint64_t hash, uint64_t value) {
    hash = (hash ^ value) * 0xff51afd7ed558ccdULL;
    return hash ^ (hash >> 29);
  }
  std::vector<uint64_t> all_hashes() const {
    std::vector<uint64_t> hashes;
    uint64_t hash = mix(domain.tenant[0], 1);
    for (const TokenId token : tokens) {
      hash = mix(hash, static_cast<uint64_t>(token) + 1);
      hashes.push_back(hash);
    }
    return hashes;
  }
  // Never zero: a slot without a row is.
  static Row row_of(uint64_t hash, uint64_t salt) {
    Row row;
    for (float& value : row) {
      hash = mix(hash, ++salt);
      value = static_cast<float>(hash >> 41) + 1.0F;
    }
    return row;
  }
  void write_row(uint32_t position) {
    const uint64_t hash = all_hashes()[position];
    const View view = cache_->view(lease);
    for (const GroupView& group : view.groups) {
      const BlockLayout& layout = *group.layout;
      std::byte* block = group.block_of(position);
      for (uint32_t layer = 0; layer < layout.group().layers; ++layer) {
        const uint32_t slot = group.slot_of(position);
        quant::store_key(layout.tile(), row_of(hash, layer), slot,
                         block + layout.key_offset(layer, 0));
        quant::store_value(layout.tile(), row_of(hash, layer + 100), slot,
                           block + layout.value_offset(layer, 0));
      }
    }
  }
  static Row key_at(const GroupView& group, uint32_t position, uint32_t layer) {
    Row row;
    quant::load_key(group.layout->tile(),
                    group.block_of(position) + group.layout->key_offset(layer, 0),
                    group.slot_of(position), row);
    return row;
  }
  static Row value_at(const GroupView& group, uint32_t position, uint32_t layer) {
    Row row;
    quant::load_value(group.layout->tile(),
                      group.block_of(position) + group.layout->value_offset(layer, 0),
                      group.slot_of(position), row);
    return row;
  }
  static bool row_is(const GroupView& group, uint32_t position, uint64_t hash) {
    for (uint32_t layer = 0; layer < group.layout->group().layers; ++layer) {
      if (key_at(group, position, layer) != row_of(hash, layer)) return false;
      if (value_at(group, position, layer) != row_of(hash, layer + 100)) return false;
    }
    return true;
  }
  bool slots_are_zero_from(uint32_t first) const {
    const View view = cache_->view(lease);
    for (const GroupView& group : view.groups) {
      const auto end = static_cast<uint32_t>(group.blocks.size()) * kTestBlockTokens;
      for (uint32_t position = first; position < end; ++position) {
        for (uint32_t layer = 0; layer < group.layout->group().layers; ++layer) {
          if (key_at(group, position, layer) != Row{}) return false;
          if (value_at(group, position, layer) != Row{}) return false;
        }
      }
    }
    return true;
  }

  Cache* cache_;
};

}  // namespace kvasir::kv
