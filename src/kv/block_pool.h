// All KV memory: equal blocks in one arena, counted references, nothing beyond the budget.
//
// Blocks are handed out in runs of `run_blocks` neighbours: one block for the paged cache, the
// blocks of a whole sequence for the contiguous one, so that both modes obey the same law.
//
// Thread: engine thread only. Allocates: create() only.
// Invariant: free + referenced == capacity, checkable at any time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/layout.h"

namespace kvasir::kv {

struct PoolStats {
  uint32_t blocks_capacity = 0;
  uint32_t blocks_free = 0;
  uint32_t blocks_referenced = 0;
  uint32_t blocks_referenced_peak = 0;
};

class BlockPool {
 public:
  // A pool of `runs` runs. Error: the memory can not be had.
  static base::Result<BlockPool> create(const BlockLayout& layout, uint32_t runs,
                                        uint32_t run_blocks);

  // First block of a run with one reference on each of its blocks; nullopt: none is free now.
  // The memory holds whatever its last user left: see clear().
  [[nodiscard]] std::optional<BlockId> take();
  // One more owner. Requires: the block is referenced.
  void add_reference(BlockId block);
  // One owner less; the run is free again when none of its blocks has an owner.
  // Requires: the block is referenced.
  void drop_reference(BlockId block);

  // Zero-fills a block before its first use: slots not written yet then count as exact zeros.
  // Requires: exactly one reference.
  void clear(BlockId block);

  std::byte* data(BlockId block) const;
  uint32_t references(BlockId block) const;
  // How often the block has been handed out: exposes a stale BlockId.
  uint32_t generation(BlockId block) const;
  uint32_t run_blocks() const { return run_blocks_; }
  PoolStats stats() const;

  // Aborts where the books do not balance. O(capacity).
  void check_invariants() const;

 private:
  struct Block {
    uint32_t references = 0;
    uint32_t generation = 0;
  };

  BlockPool(base::AlignedBuffer arena, size_t block_bytes, uint32_t runs, uint32_t run_blocks);
  bool run_is_free(uint32_t run) const;
  Block& referenced_block(BlockId block);

  // Constant after construction.
  base::AlignedBuffer arena_;
  size_t block_bytes_;
  uint32_t run_blocks_;

  std::vector<Block> blocks_;
  std::vector<uint32_t> free_runs_;  // a stack: the run freed last is warm in the cache
  uint32_t blocks_referenced_ = 0;   // blocks of runs that are not free
  uint32_t blocks_referenced_peak_ = 0;
};

}  // namespace kvasir::kv
