// What a cached block is, independent of where it lies: a chain of digests.
//
//   root  = digest(seed)             of (secret, model, numerics class, KV dtype, block tokens) ...
//   chain = digest(root, tenant domain, adapter)
//   block = digest(digest of the block before it, its token ids)
//
// Equal digests are a hint; a hit also compares token ids and the identity of the block before, so
// no collision can serve wrong keys and values.
//
// Thread: any. Allocates: IdentitySeed only.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/digest.h"
#include "base/ids.h"

namespace kvasir::kv {

using Digest = base::Sha256Bytes;

// digest(previous, words): tests pass functions that collide.
using DigestFunction = Digest (*)(const Digest& previous, std::span<const TokenId> words);
Digest sha256_chain(const Digest& previous, std::span<const TokenId> words);

// Whose tokens they are and what else their keys and values depend on. Comes from the authenticated
// tenant, never from the body of a request alone. All zero: the only tenant, no adapter.
struct CacheDomain {
  std::array<uint8_t, 32> tenant{};
  std::array<uint8_t, 32> adapter{};
  bool operator==(const CacheDomain&) const = default;
};
constexpr size_t kDomainWords = 16;
// The domain as words, to be compared and digested like the tokens of a block.
// What an encoder-decoder's tokens attend to besides is `encoder`: its SHA-256 joins the adapter.
std::array<TokenId, kDomainWords> words_of(const CacheDomain& domain,
                                           std::span<const TokenId> encoder = {});

// The first bytes of a root's digest: tells domains apart in statistics.
uint32_t domain_tag_of(const Digest& root);

// A 64-bit fingerprint of a chain of tokens that leaves the domain out: for statistics only.
uint64_t fingerprint_chain(uint64_t previous, std::span<const TokenId> tokens);

}  // namespace kvasir::kv
