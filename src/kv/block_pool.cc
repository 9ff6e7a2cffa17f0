#include "kv/block_pool.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace kvasir::kv {

base::Result<BlockPool> BlockPool::create(const BlockLayout& layout, uint32_t runs,
                                          uint32_t run_blocks) {
  CHECK(run_blocks > 0);
  const uint64_t bytes = uint64_t{runs} * run_blocks * layout.block_bytes();
  ASSIGN_OR_RETURN(base::AlignedBuffer arena, base::AlignedBuffer::create(bytes));
  return BlockPool(std::move(arena), layout.block_bytes(), runs, run_blocks);
}

BlockPool::BlockPool(base::AlignedBuffer arena, size_t block_bytes, uint32_t runs,
                     uint32_t run_blocks)
    : arena_(std::move(arena)), block_bytes_(block_bytes), run_blocks_(run_blocks) {
  blocks_.resize(size_t{runs} * run_blocks);
  free_runs_.reserve(runs);
  for (uint32_t run = runs; run-- > 0;) free_runs_.push_back(run);  // run 0 is taken first
}

std::optional<BlockId> BlockPool::take() {
  if (free_runs_.empty()) return std::nullopt;
  const uint32_t run = free_runs_.back();
  free_runs_.pop_back();
  for (uint32_t i = run * run_blocks_; i < (run + 1) * run_blocks_; ++i) {
    CHECK(blocks_[i].references == 0);
    blocks_[i].references = 1;
    ++blocks_[i].generation;
  }
  blocks_referenced_ += run_blocks_;
  blocks_referenced_peak_ = std::max(blocks_referenced_peak_, blocks_referenced_);
  return BlockId{run * run_blocks_};
}

void BlockPool::add_reference(BlockId block) {
  ++referenced_block(block).references;
}

void BlockPool::drop_reference(BlockId block) {
  Block& entry = referenced_block(block);
  --entry.references;
  if (entry.references > 0) return;
  const uint32_t run = index_of(block) / run_blocks_;
  if (!run_is_free(run)) return;
  free_runs_.push_back(run);
  CHECK(blocks_referenced_ >= run_blocks_);
  blocks_referenced_ -= run_blocks_;
}

void BlockPool::clear(BlockId block) {
  CHECK(references(block) == 1);
  std::memset(data(block), 0, block_bytes_);
}

std::byte* BlockPool::data(BlockId block) const {
  CHECK(index_of(block) < blocks_.size());
  return arena_.data() + size_t{index_of(block)} * block_bytes_;
}

uint32_t BlockPool::references(BlockId block) const {
  CHECK(index_of(block) < blocks_.size());
  return blocks_[index_of(block)].references;
}

uint32_t BlockPool::generation(BlockId block) const {
  CHECK(index_of(block) < blocks_.size());
  return blocks_[index_of(block)].generation;
}

PoolStats BlockPool::stats() const {
  const auto capacity = static_cast<uint32_t>(blocks_.size());
  return {.blocks_capacity = capacity,
          .blocks_free = static_cast<uint32_t>(free_runs_.size()) * run_blocks_,
          .blocks_referenced = blocks_referenced_,
          .blocks_referenced_peak = blocks_referenced_peak_};
}

void BlockPool::check_invariants() const {
  const PoolStats now = stats();
  CHECK(now.blocks_free + now.blocks_referenced == now.blocks_capacity);
  uint32_t runs_referenced = 0;
  for (uint32_t run = 0; run < blocks_.size() / run_blocks_; ++run) {
    if (!run_is_free(run)) ++runs_referenced;
  }
  CHECK(runs_referenced * run_blocks_ == blocks_referenced_);
  for (const uint32_t run : free_runs_) CHECK(run_is_free(run));
}

bool BlockPool::run_is_free(uint32_t run) const {
  const auto first = blocks_.begin() + static_cast<ptrdiff_t>(run) * run_blocks_;
  return std::all_of(first, first + run_blocks_, [](const Block& b) { return b.references == 0; });
}

BlockPool::Block& BlockPool::referenced_block(BlockId block) {
  CHECK(index_of(block) < blocks_.size());
  Block& entry = blocks_[index_of(block)];
  CHECK(entry.references > 0);
  return entry;
}

}  // namespace kvasir::kv
