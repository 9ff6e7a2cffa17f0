#include "kv/block_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

namespace kvasir::kv {
namespace {

constexpr int kPoison = 0xa5;

// With one group, everything; with several, the smallest multiple of the unit that each group's
// blocks fill to 99 %.
uint64_t slab_bytes_for(const PoolOptions& options) {
  const std::vector<size_t>& sizes = options.block_bytes;
  if (sizes.size() == 1) return options.budget_bytes / sizes[0] * sizes[0];
  const size_t largest = *std::ranges::max_element(sizes);
  const auto fills = [&](uint64_t bytes) {
    return std::ranges::all_of(sizes, [&](size_t size) { return bytes % size * 100 <= bytes; });
  };
  uint64_t bytes = base::div_ceil(largest, options.slab_unit_bytes) * options.slab_unit_bytes;
  while (!fills(bytes)) bytes += options.slab_unit_bytes;
  return bytes;
}

}  // namespace

base::Result<BlockPool> BlockPool::create(const PoolOptions& options) {
  CHECK(!options.block_bytes.empty());
  CHECK(options.block_bytes.size() <= kGroupsMax);
  const uint64_t slab_bytes = slab_bytes_for(options);
  const uint64_t slabs = slab_bytes == 0 ? 0 : options.budget_bytes / slab_bytes;
  if (slabs < options.block_bytes.size()) {
    const uint64_t least = options.block_bytes.size() == 1
                               ? options.block_bytes[0]
                               : slab_bytes * options.block_bytes.size();
    return base::bad_input(
        fmt::format("the KV budget of {} bytes holds no block of each kind; give at least {}",
                    options.budget_bytes, least));
  }
  const uint64_t stride = slab_bytes / *std::ranges::min_element(options.block_bytes);
  if (slabs * stride >= std::numeric_limits<uint32_t>::max()) {
    return base::bad_input(
        fmt::format("the KV budget of {} bytes makes more than 2^32 blocks", options.budget_bytes));
  }
  ASSIGN_OR_RETURN(base::AlignedBuffer arena, base::AlignedBuffer::create(slabs * slab_bytes));
  return BlockPool(std::move(arena), options, slab_bytes, static_cast<uint32_t>(slabs));
}

BlockPool::BlockPool(base::AlignedBuffer arena, const PoolOptions& options, uint64_t slab_bytes,
                     uint32_t slabs)
    : arena_(std::move(arena)),
      slab_bytes_(slab_bytes),
      poison_released_(options.poison_released),
      slabs_(slabs) {
  for (const size_t bytes : options.block_bytes) {
    const auto slab_blocks = static_cast<uint32_t>(slab_bytes / bytes);
    groups_.push_back({.block_bytes = bytes, .slab_blocks = slab_blocks});
    slab_stride_ = std::max(slab_stride_, slab_blocks);
  }
  blocks_.resize(size_t{slabs} * slab_stride_);
  ids_.reserve(blocks_.size());
  for (uint32_t i = 0; i < blocks_.size(); ++i) ids_.push_back(BlockId{i});
  if (groups_.size() == 1) assign_slab(0, 0);
}

std::optional<BlockId> BlockPool::take(uint32_t group) {
  Group& from = groups_[group];
  if (from.free_first == kNone && !claim_slab(group)) return std::nullopt;
  const BlockId block{from.free_first};
  unlink_free(group, index_of(block));
  set_state(block, BlockState::kFilling);
  at(block).references = 1;
  return block;
}

std::optional<BlockId> BlockPool::take_run(uint32_t count) {
  CHECK(groups_.size() == 1);
  CHECK(count > 0);
  const auto is_free = [](const Block& b) { return b.state == BlockState::kFree; };
  for (uint32_t first = 0; first + count <= blocks_.size(); first += count) {
    const auto begin = blocks_.begin() + first;
    if (!std::all_of(begin, begin + count, is_free)) continue;
    for (uint32_t i = first; i < first + count; ++i) {
      unlink_free(0, i);
      set_state(BlockId{i}, BlockState::kFilling);
      blocks_[i].references = 1;
    }
    return BlockId{first};
  }
  return std::nullopt;
}

void BlockPool::add_reference(BlockId block) {
  Block& entry = at(block);
  CHECK(entry.state != BlockState::kFree);
  if (entry.state == BlockState::kCached) {
    CHECK(entry.references == 0);
    set_state(block, BlockState::kSealed);
  }
  ++entry.references;
}

bool BlockPool::drop_reference(BlockId block) {
  Block& entry = at(block);
  CHECK(entry.references > 0);
  return --entry.references == 0;
}

void BlockPool::seal(BlockId block) {
  CHECK(at(block).state == BlockState::kFilling);
  set_state(block, BlockState::kSealed);
}

void BlockPool::unseal(BlockId block) {
  CHECK(at(block).state == BlockState::kSealed);
  CHECK(at(block).references == 1);
  set_state(block, BlockState::kFilling);
}

void BlockPool::cache(BlockId block) {
  CHECK(at(block).state == BlockState::kSealed);
  CHECK(at(block).references == 0);
  set_state(block, BlockState::kCached);
}

void BlockPool::free(BlockId block) {
  Block& entry = at(block);
  CHECK(entry.state == BlockState::kFilling || entry.state == BlockState::kCached);
  CHECK(entry.references == 0);
  set_state(block, BlockState::kFree);
  ++entry.generation;
  if (poison_released_) std::memset(data(block), kPoison, block_bytes(group(block)));
  push_free(group(block), index_of(block));
}

void BlockPool::move(BlockId from, BlockId to) {
  CHECK(group(from) == group(to));
  CHECK(at(to).state == BlockState::kFilling && at(to).references == 1);
  std::memcpy(data(to), data(from), block_bytes(group(from)));
  at(to).references = std::exchange(at(from).references, 0);
  set_state(to, at(from).state);
  set_state(from, BlockState::kFilling);
  free(from);
}

void BlockPool::clear(BlockId block) {
  CHECK(references(block) == 1);
  std::memset(data(block), 0, block_bytes(group(block)));
}

std::byte* BlockPool::data(BlockId block) const {
  CHECK(at(block).exists);
  const uint32_t slab = slab_of(block);
  return arena_.data() + slab * slab_bytes_ +
         size_t{index_of(block) % slab_stride_} * groups_[slabs_[slab].group].block_bytes;
}

uint32_t BlockPool::blocks_max(uint32_t group) const {
  return groups_[group].slab_blocks * slab_count();
}

uint32_t BlockPool::blocks_takeable(uint32_t group) const {
  uint32_t count = groups_[group].counts.of(BlockState::kFree);
  if (groups_.size() == 1) return count;
  for (const Slab& slab : slabs_) {
    if (slab.used == 0 && !(slab.assigned && slab.group == group)) {
      count += groups_[group].slab_blocks;
    }
  }
  return count;
}

std::span<const BlockId> BlockPool::slab_blocks(uint32_t slab) const {
  const uint32_t count = slabs_[slab].assigned ? groups_[slabs_[slab].group].slab_blocks : 0;
  return std::span(ids_).subspan(size_t{slab} * slab_stride_, count);
}

void BlockPool::repair(BlockId block, uint32_t references, bool cached) {
  Block& entry = at(block);
  if (!entry.exists) return;
  entry.references = references;
  if (references > 0) {
    if (entry.state == BlockState::kFree) unlink_free(group(block), index_of(block));
    const bool filling = entry.state == BlockState::kFilling || entry.state == BlockState::kFree;
    set_state(block, filling ? BlockState::kFilling : BlockState::kSealed);
  } else if (cached) {
    set_state(block, BlockState::kCached);
  } else if (entry.state != BlockState::kFree) {
    set_state(block, BlockState::kFilling);
    free(block);
  }
}

void BlockPool::check_invariants() const {
  std::vector<BlockCounts> counted(groups_.size());
  for (uint32_t s = 0; s < slabs_.size(); ++s) {
    uint32_t used = 0;
    for (const BlockId block : slab_blocks(s)) {
      const Block& entry = at(block);
      CHECK(entry.exists);
      CHECK((entry.references > 0) ==
            (entry.state == BlockState::kFilling || entry.state == BlockState::kSealed));
      ++counted[slabs_[s].group].by_state[static_cast<size_t>(entry.state)];
      used += entry.state == BlockState::kFree ? 0 : 1;
    }
    CHECK(used == slabs_[s].used);
  }
  for (uint32_t g = 0; g < groups_.size(); ++g) {
    CHECK(counted[g].by_state == groups_[g].counts.by_state);
    uint32_t listed = 0;
    for (uint32_t i = groups_[g].free_first; i != kNone; i = blocks_[i].next) {
      CHECK(blocks_[i].state == BlockState::kFree);
      ++listed;
    }
    CHECK(listed == counted[g].of(BlockState::kFree));
  }
}

const BlockPool::Block& BlockPool::at(BlockId block) const {
  CHECK(index_of(block) < blocks_.size());
  return blocks_[index_of(block)];
}

void BlockPool::set_state(BlockId block, BlockState state) {
  Slab& slab = slabs_[slab_of(block)];
  BlockCounts& counts = groups_[slab.group].counts;
  Block& entry = at(block);
  if (entry.state == BlockState::kFree && state != BlockState::kFree) ++slab.used;
  if (entry.state != BlockState::kFree && state == BlockState::kFree) --slab.used;
  --counts.by_state[static_cast<size_t>(entry.state)];
  ++counts.by_state[static_cast<size_t>(state)];
  counts.referenced_peak = std::max(counts.referenced_peak, counts.referenced());
  entry.state = state;
}

// The block freed last is warm in the processor's cache: it is taken first.
void BlockPool::push_free(uint32_t group, uint32_t block) {
  uint32_t& first = groups_[group].free_first;
  blocks_[block].previous = kNone;
  blocks_[block].next = first;
  if (first != kNone) blocks_[first].previous = block;
  first = block;
}

void BlockPool::unlink_free(uint32_t group, uint32_t block) {
  Block& entry = blocks_[block];
  if (entry.previous == kNone) {
    CHECK(groups_[group].free_first == block);
    groups_[group].free_first = entry.next;
  } else {
    blocks_[entry.previous].next = entry.next;
  }
  if (entry.next != kNone) blocks_[entry.next].previous = entry.previous;
  entry.previous = kNone;
  entry.next = kNone;
}

bool BlockPool::claim_slab(uint32_t group) {
  for (uint32_t i = 0; i < slabs_.size(); ++i) {
    if (slabs_[i].used > 0 || (slabs_[i].assigned && slabs_[i].group == group)) continue;
    if (slabs_[i].assigned) unassign_slab(i);
    assign_slab(i, group);
    return true;
  }
  return false;
}

void BlockPool::assign_slab(uint32_t slab, uint32_t group) {
  slabs_[slab] = {.group = group, .assigned = true};
  const uint32_t first = slab * slab_stride_;
  for (uint32_t i = first + groups_[group].slab_blocks; i-- > first;) {  // the first is taken first
    blocks_[i].exists = true;
    push_free(group, i);
  }
  groups_[group].counts.by_state[static_cast<size_t>(BlockState::kFree)] +=
      groups_[group].slab_blocks;
}

void BlockPool::unassign_slab(uint32_t slab) {
  const uint32_t group = slabs_[slab].group;
  for (const BlockId block : slab_blocks(slab)) {
    unlink_free(group, index_of(block));
    at(block).exists = false;
    ++at(block).generation;
  }
  groups_[group].counts.by_state[static_cast<size_t>(BlockState::kFree)] -=
      groups_[group].slab_blocks;
  slabs_[slab].assigned = false;
}

}  // namespace kvasir::kv
