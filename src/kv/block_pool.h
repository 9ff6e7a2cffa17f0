// All KV memory: one arena within one budget, cut into slabs, each slab into equal blocks of one KV
// group. With one group the arena is one slab; with several, slabs of equal size go from a group
// that has left one empty to a group that needs it.
//
// Life of a block:
//
//   Free --take--> Filling (written by its owner) --seal--> Sealed (immutable, shared by count)
//     ^               |                                       |  ^
//     |               |                          last owner   v  | add_reference
//     +----- free ----+-------------- free ------------------ Cached
//
// Thread: engine thread only. Allocates: create() only.
// Invariant, checkable at any time: free + filling + sealed + cached == capacity in each group.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/ids.h"
#include "base/result.h"
#include "kv/layout.h"

namespace kvasir::kv {

enum class BlockState : uint8_t { kFree, kFilling, kSealed, kCached };
constexpr size_t kBlockStates = 4;

// A block as it was when it was taken: stale once it has been freed.
struct BlockRef {
  BlockId id{};
  uint32_t generation = 0;
  bool operator==(const BlockRef&) const = default;
};

struct BlockCounts {
  std::array<uint32_t, kBlockStates> by_state{};
  uint32_t referenced_peak = 0;  // most blocks filling or sealed at a time

  uint32_t of(BlockState state) const { return by_state[static_cast<size_t>(state)]; }
  uint32_t referenced() const { return of(BlockState::kFilling) + of(BlockState::kSealed); }
  uint32_t capacity() const { return by_state[0] + by_state[1] + by_state[2] + by_state[3]; }
};

struct PoolOptions {
  std::vector<size_t> block_bytes;  // by group
  uint64_t budget_bytes = 0;
  uint64_t slab_unit_bytes = uint64_t{2} << 20;  // slabs are multiples of it: huge pages
  bool poison_released = false;  // tests: overwrite what is freed, so that stale reads show
};

class BlockPool {
 public:
  // Error: the budget holds no block of some group, too many blocks, or no memory.
  static base::Result<BlockPool> create(const PoolOptions& options);

  // A free block, now filling, with one reference; its memory holds anything. Claims an empty slab
  // where the group has no free block. nullopt: none is free.
  [[nodiscard]] std::optional<BlockId> take(uint32_t group);
  // `blocks` neighbours, the first at a multiple of `blocks`; O(capacity). Requires: one group.
  [[nodiscard]] std::optional<BlockId> take_run(uint32_t blocks);

  // One more owner. Requires: the block is not free. A cached one is sealed again.
  void add_reference(BlockId block);
  // One owner less; true: that was the last, and the caller must cache() or free() the block.
  [[nodiscard]] bool drop_reference(BlockId block);
  // Filling -> Sealed.
  void seal(BlockId block);
  // Sealed -> Filling: the only owner takes it back. Requires: one reference.
  void unseal(BlockId block);
  // Sealed without owners -> Cached.
  void cache(BlockId block);
  // Filling without owners, or Cached -> Free. Earlier BlockRefs to it become stale.
  void free(BlockId block);

  // Gives the bytes, owners and state of `from` to `to` and frees `from`: relocation. Requires:
  // `to` has just been taken in the same group.
  void move(BlockId from, BlockId to);

  // Zero-fills a block before its first use: slots not written yet then count as exact zeros.
  // Requires: exactly one reference.
  void clear(BlockId block);

  std::byte* data(BlockId block) const;
  size_t block_bytes(uint32_t group) const { return groups_[group].block_bytes; }
  BlockState state(BlockId block) const { return at(block).state; }
  uint32_t references(BlockId block) const { return at(block).references; }
  uint32_t group(BlockId block) const { return slabs_[slab_of(block)].group; }
  BlockRef ref(BlockId block) const { return {block, at(block).generation}; }
  bool is_stale(BlockRef ref) const { return at(ref.id).generation != ref.generation; }

  uint32_t groups() const { return static_cast<uint32_t>(groups_.size()); }
  // Blocks ids are below this; with several groups not every id below it is in use.
  uint32_t ids_end() const { return static_cast<uint32_t>(blocks_.size()); }
  BlockCounts counts(uint32_t group) const { return groups_[group].counts; }
  // Blocks a group can have at most: all slabs its own.
  uint32_t blocks_max(uint32_t group) const;
  // Blocks that take() can still give to the group without anyone freeing one.
  uint32_t blocks_takeable(uint32_t group) const;
  uint64_t arena_bytes() const { return arena_.size_bytes(); }

  // The blocks of a slab; empty: no group has it.
  std::span<const BlockId> slab_blocks(uint32_t slab) const;
  uint32_t slab_of(BlockId block) const { return index_of(block) / slab_stride_; }
  uint32_t slab_count() const { return static_cast<uint32_t>(slabs_.size()); }
  uint32_t slab_block_count(uint32_t group) const { return groups_[group].slab_blocks; }

  // Sets a block's owners as counted anew and mends its state: repair of the books.
  void repair(BlockId block, uint32_t references, bool cached);

  // Aborts where the books do not balance. O(capacity).
  void check_invariants() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;  // of the free list's links

  struct Block {
    uint32_t references = 0;
    uint32_t generation = 0;
    uint32_t previous = kNone;  // free list
    uint32_t next = kNone;
    BlockState state = BlockState::kFree;
    bool exists = false;  // some group's slab has a block here
  };
  struct Group {
    size_t block_bytes = 0;
    uint32_t slab_blocks = 0;  // blocks of one slab
    uint32_t free_first = kNone;
    BlockCounts counts;
  };
  struct Slab {
    uint32_t group = 0;
    bool assigned = false;
    uint32_t used = 0;  // blocks not free
  };

  BlockPool(base::AlignedBuffer arena, const PoolOptions& options, uint64_t slab_bytes,
            uint32_t slabs);
  const Block& at(BlockId block) const;
  Block& at(BlockId block) { return const_cast<Block&>(std::as_const(*this).at(block)); }
  void set_state(BlockId block, BlockState state);
  void push_free(uint32_t group, uint32_t block);
  void unlink_free(uint32_t group, uint32_t block);
  bool claim_slab(uint32_t group);
  void assign_slab(uint32_t slab, uint32_t group);
  void unassign_slab(uint32_t slab);

  // Constant after construction.
  base::AlignedBuffer arena_;
  uint64_t slab_bytes_;
  uint32_t slab_stride_ = 0;  // ids per slab
  bool poison_released_;
  std::vector<BlockId> ids_;  // ids_[i] == BlockId{i}

  std::vector<Group> groups_;
  std::vector<Slab> slabs_;
  std::vector<Block> blocks_;
};

}  // namespace kvasir::kv
