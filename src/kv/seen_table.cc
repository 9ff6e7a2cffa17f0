#include "kv/seen_table.h"

#include <algorithm>
#include <bit>

namespace kvasir::kv {

SeenTable::SeenTable(uint32_t entries_min) : entries_(std::bit_ceil(size_t{entries_min} + 1)) {}

void SeenTable::sealed(uint64_t fingerprint, uint32_t root) {
  entry_of(fingerprint) = {.fingerprint = fingerprint, .root = root, .used = true};
}

void SeenTable::evicted(uint64_t fingerprint, uint32_t root) {
  Entry& entry = entry_of(fingerprint);
  if (entry.used && entry.fingerprint == fingerprint && entry.root == root) entry.evicted = true;
}

SeenTable::Answer SeenTable::ask(uint64_t fingerprint, uint32_t root) const {
  const Entry& entry = entry_of(fingerprint);
  if (!entry.used || entry.fingerprint != fingerprint) return Answer::kUnknown;
  if (entry.root != root) return Answer::kElsewhere;
  return entry.evicted ? Answer::kEvictedHere : Answer::kHere;
}

void SeenTable::clear() {
  std::ranges::fill(entries_, Entry{});
}

}  // namespace kvasir::kv
