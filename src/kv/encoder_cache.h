// Which encoder inputs have their keys and values in memory. An entry holds one whole input: what
// an encoder computes for a position depends on all positions, so there are no prefixes to share.
// Entries are found by digest; domain and tokens are compared.
//
// Thread: engine thread only. Allocates: constructor only.
// Invariant: an entry is idle exactly while it exists and has no users.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/identity.h"

namespace kvasir::kv {

class EncoderCache {
 public:
  struct Entry {
    Digest digest{};
    CacheDomain domain;
    std::vector<TokenId> tokens;
    std::array<std::vector<BlockId>, kGroupsMax> blocks;  // by group
    uint32_t users = 0;                                   // block tables that read it
    bool ready = false;                                   // it has been written
    bool exists = false;
    uint64_t left_at = 0;  // order in which entries became idle
  };

  // Room for `entries` inputs of up to `tokens_max` tokens in blocks of `block_tokens`.
  EncoderCache(uint32_t entries, uint32_t tokens_max, uint32_t block_tokens);

  std::optional<uint32_t> find(const Digest& digest, const CacheDomain& domain,
                               std::span<const TokenId> tokens) const;
  // A new entry without blocks or users. nullopt: all are taken.
  std::optional<uint32_t> insert(const Digest& digest, const CacheDomain& domain,
                                 std::span<const TokenId> tokens);
  // Requires: no users, no blocks.
  void erase(uint32_t entry);
  // The entry without users that was left longest ago.
  std::optional<uint32_t> oldest_idle() const;
  void add_user(uint32_t entry) { ++entries_[entry].users; }
  void drop_user(uint32_t entry);

  Entry& entry(uint32_t index) { return entries_[index]; }
  const Entry& entry(uint32_t index) const { return entries_[index]; }
  uint32_t size() const { return static_cast<uint32_t>(entries_.size()); }
  // The entry that owns a block of this group.
  std::optional<uint32_t> owner_of(uint32_t group, BlockId block) const;

 private:
  std::vector<Entry> entries_;
  uint64_t departures_ = 0;
};

}  // namespace kvasir::kv
