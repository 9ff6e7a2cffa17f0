#include "kv/identity.h"

#include <cstring>

namespace kvasir::kv {

Digest sha256_chain(const Digest& previous, std::span<const TokenId> words) {
  base::Sha256 hash;
  hash.update(std::as_bytes(std::span(previous)));
  hash.update(std::as_bytes(words));
  return hash.finish();
}

std::array<TokenId, kDomainWords> words_of(const CacheDomain& domain,
                                           std::span<const TokenId> encoder) {
  const Digest adapter = encoder.empty() ? domain.adapter : sha256_chain(domain.adapter, encoder);
  std::array<TokenId, kDomainWords> words{};
  static_assert(sizeof(words) == sizeof(domain.tenant) + sizeof(domain.adapter));
  std::memcpy(words.data(), domain.tenant.data(), sizeof(domain.tenant));
  std::memcpy(words.data() + sizeof(domain.tenant) / sizeof(TokenId), adapter.data(),
              sizeof(adapter));
  return words;
}

uint32_t domain_tag_of(const Digest& root) {
  uint32_t tag = 0;
  std::memcpy(&tag, root.data(), sizeof(tag));
  return tag;
}

// The finaliser of SplitMix64 (Steele et al., OOPSLA 2014) over each token.
uint64_t fingerprint_chain(uint64_t previous, std::span<const TokenId> tokens) {
  uint64_t hash = previous;
  for (const TokenId token : tokens) {
    hash += static_cast<uint64_t>(token) + 0x9e3779b97f4a7c15ULL;
    hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9ULL;
    hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebULL;
    hash ^= hash >> 31;
  }
  return hash;
}

}  // namespace kvasir::kv
