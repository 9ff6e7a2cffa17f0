#include "kv/encoder_cache.h"

#include <algorithm>

#include "base/check.h"
#include "base/checked_math.h"

namespace kvasir::kv {

EncoderCache::EncoderCache(uint32_t entries, uint32_t tokens_max, uint32_t block_tokens)
    : entries_(entries) {
  for (Entry& entry : entries_) {
    entry.tokens.reserve(tokens_max);
    for (std::vector<BlockId>& blocks : entry.blocks) {
      blocks.reserve(base::div_ceil(tokens_max, block_tokens));
    }
  }
}

std::optional<uint32_t> EncoderCache::find(const Digest& digest, const CacheDomain& domain,
                                           std::span<const TokenId> tokens) const {
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    const Entry& entry = entries_[i];
    if (!entry.exists || entry.digest != digest || entry.domain != domain) continue;
    if (std::ranges::equal(entry.tokens, tokens)) return i;
  }
  return std::nullopt;
}

std::optional<uint32_t> EncoderCache::insert(const Digest& digest, const CacheDomain& domain,
                                             std::span<const TokenId> tokens) {
  const auto free = std::ranges::find_if(entries_, [](const Entry& e) { return !e.exists; });
  if (free == entries_.end()) return std::nullopt;
  CHECK(tokens.size() <= free->tokens.capacity());
  free->digest = digest;
  free->domain = domain;
  free->tokens.assign(tokens.begin(), tokens.end());
  free->ready = false;
  free->exists = true;
  free->left_at = ++departures_;
  return static_cast<uint32_t>(free - entries_.begin());
}

void EncoderCache::erase(uint32_t index) {
  Entry& entry = entries_[index];
  CHECK(entry.exists);
  CHECK(entry.users == 0);
  for (const std::vector<BlockId>& blocks : entry.blocks) CHECK(blocks.empty());
  entry.tokens.clear();
  entry.exists = false;
}

std::optional<uint32_t> EncoderCache::oldest_idle() const {
  std::optional<uint32_t> oldest;
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].exists || entries_[i].users > 0) continue;
    if (!oldest || entries_[i].left_at < entries_[*oldest].left_at) oldest = i;
  }
  return oldest;
}

void EncoderCache::drop_user(uint32_t index) {
  Entry& entry = entries_[index];
  CHECK(entry.users > 0);
  if (--entry.users == 0) entry.left_at = ++departures_;
}

std::optional<uint32_t> EncoderCache::owner_of(uint32_t group, BlockId block) const {
  for (uint32_t i = 0; i < entries_.size(); ++i) {
    if (!entries_[i].exists) continue;
    const std::vector<BlockId>& blocks = entries_[i].blocks[group];
    if (std::ranges::find(blocks, block) != blocks.end()) return i;
  }
  return std::nullopt;
}

}  // namespace kvasir::kv
