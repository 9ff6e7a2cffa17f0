// The door of the KV cache: who may hold how much of it, and where a sequence's tokens live.
// It knows no model, kernel or file format.
//
// Modes:
//   kPaged       blocks are taken as a sequence grows; references are counted, for sharing
//   kContiguous  one run of blocks for the longest possible sequence is taken at once, as the
//                textbooks do; kept so that what paging gains is measured and not claimed
//   kNone        like kPaged, but the engine empties the table after every token and computes all
//                keys and values again: the naive engine, as a mode of the same program
//
// Admission is by promise: open() promises a sequence all blocks it can ever need, so grow() can
// not fail and no two running sequences can starve each other.
//
// Thread: engine thread only. Allocates: create() only.
// Invariants: free + referenced == capacity; blocks promised <= capacity; every reference in the
// pool belongs to exactly one table entry.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "kv/block_pool.h"
#include "kv/view.h"

namespace kvasir::kv {

enum class CacheMode : uint8_t { kNone, kContiguous, kPaged };

std::optional<CacheMode> parse_cache_mode(std::string_view name);  // "none", "contiguous", "paged"
std::string_view cache_mode_name(CacheMode mode);

struct CacheOptions {
  CacheMode mode = CacheMode::kPaged;
  GroupShape group;
  uint32_t block_tokens = 32;
  uint64_t budget_bytes = 0;  // the arena never exceeds it
  uint32_t sequences_max = 1;
  uint32_t sequence_tokens_max = 0;  // longest sequence that may ever be opened
};

struct CacheStats {
  PoolStats pool;
  uint32_t blocks_promised = 0;  // to open sequences, taken or not
  uint64_t block_bytes = 0;
};

enum class Admission : uint8_t {
  kNow,
  kLater,  // when others have finished
  kNever,  // longer than the whole cache
};

class Cache;

// One sequence's place in the cache; gives its blocks back when destroyed.
// Move-only. The Cache must outlive it.
class Lease {
 public:
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

 private:
  friend class Cache;
  Lease(Cache* cache, uint32_t table) : cache_(cache), table_(table) {}

  Cache* cache_;  // nullptr: moved from
  uint32_t table_;
};

class Cache {
 public:
  // Error: the budget is smaller than one sequence needs at least, or memory can not be had.
  static base::Result<std::unique_ptr<Cache>> create(const CacheOptions& options);
  Cache(const Cache&) = delete;  // leases point to it: it never moves
  Cache& operator=(const Cache&) = delete;

  // Whether open(tokens_max) would succeed. Requires: 1 <= tokens_max <= sequence_tokens_max.
  Admission admission(uint32_t tokens_max) const;
  // Blocks that open(tokens_max) promises.
  uint32_t blocks_needed(uint32_t tokens_max) const;
  // A place for a sequence that will not exceed `tokens_max`. Requires: admission() is kNow.
  Lease open(uint32_t tokens_max);

  // Makes slots for positions [0, tokens); blocks that join are zero-filled.
  // Requires: tokens <= the tokens_max it was opened with.
  void grow(const Lease& lease, uint32_t tokens);
  // Forgets the tokens from position `tokens` on; the promise stays. Slots of the last block that
  // are no longer used are zero again. Requires: tokens <= what it has grown to.
  void truncate(const Lease& lease, uint32_t tokens);

  // Where the sequence's tokens lie. Valid until the next call that changes this lease.
  View view(const Lease& lease) const;

  const BlockLayout& layout() const { return layout_; }
  CacheMode mode() const { return options_.mode; }
  CacheStats stats() const;

  // Aborts where the books do not balance. O(capacity + tables).
  void check_invariants() const;

 private:
  friend class Lease;

  // A block table. tokens: 0 ...... covered ...... blocks.size() * block_tokens ...... promised
  //                         | zero-filled and usable |  (kContiguous: taken, unused)
  struct Table {
    bool open = false;
    uint32_t blocks_promised = 0;
    uint32_t blocks_covered = 0;       // leading blocks that may be read and written
    std::vector<BlockId> blocks;       // references held; capacity reserved at create()
    std::vector<std::byte*> pointers;  // data(blocks[i])
  };

  Cache(const CacheOptions& options, const BlockLayout& layout, BlockPool pool);
  void take_run(Table& table);
  void release_blocks_from(Table& table, uint32_t first);
  void zero_slots(std::byte* block, uint32_t first_slot) const;
  void close(uint32_t table);
  Table& table_of(const Lease& lease);

  CacheOptions options_;
  BlockLayout layout_;
  BlockPool pool_;
  std::vector<Table> tables_;
  std::vector<uint32_t> free_tables_;
  uint32_t blocks_promised_ = 0;
};

}  // namespace kvasir::kv
