// Remembers which blocks of tokens were sealed, where, and whether they were evicted since: enough
// to say why a prompt missed. A direct-mapped table of fixed size that forgets what it must; only
// statistics read it, never a match.
//
// Thread: engine thread only. Allocates: constructor only.
#pragma once

#include <cstdint>
#include <vector>

namespace kvasir::kv {

class SeenTable {
 public:
  enum class Answer : uint8_t { kUnknown, kHere, kEvictedHere, kElsewhere };

  explicit SeenTable(uint32_t entries_min);

  // `fingerprint` of the chain of tokens (without domain), sealed in the domain with root `root`.
  void sealed(uint64_t fingerprint, uint32_t root);
  void evicted(uint64_t fingerprint, uint32_t root);
  Answer ask(uint64_t fingerprint, uint32_t root) const;
  void clear();

 private:
  struct Entry {
    uint64_t fingerprint = 0;
    uint32_t root = 0;  // tag of the domain
    bool used = false;
    bool evicted = false;
  };
  const Entry& entry_of(uint64_t fingerprint) const {
    return entries_[fingerprint & (entries_.size() - 1)];
  }
  Entry& entry_of(uint64_t fingerprint) { return entries_[fingerprint & (entries_.size() - 1)]; }

  std::vector<Entry> entries_;
};

}  // namespace kvasir::kv
