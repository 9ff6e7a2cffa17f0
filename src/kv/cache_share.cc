// One more holder of what a sequence has: forks and pins.
#include <algorithm>
#include <utility>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

std::optional<Lease> Cache::fork(const Lease& lease) {
  const Table& from = table_of(lease);
  CHECK(!from.reserved);
  if (free_tables_.empty()) return std::nullopt;
  const uint32_t index = free_tables_.back();
  Table& table = tables_[index];
  if (options_.mode == CacheMode::kContiguous) {
    if (!copy_run(from, table, blocks_for(from.slots))) return std::nullopt;
  } else {
    for (uint32_t g = 0; g < groups(); ++g) {
      const uint32_t entries = g < token_groups()
                                   ? blocks_for(from.slots)
                                   : static_cast<uint32_t>(from.groups[g].blocks.size());
      table.views[g].tokens = from.views[g].tokens;
      table.groups[g].first = from.groups[g].first;
      table.groups[g].blocks.resize(from.groups[g].first);
      table.groups[g].pointers.resize(from.groups[g].first, nullptr);
      for (uint32_t i = from.groups[g].first; i < entries; ++i) {
        add_block_reference(from.groups[g].blocks[i]);
        push_block(table, g, from.groups[g].blocks[i]);
      }
    }
  }
  if (from.encoder) {
    encoders_.add_user(*from.encoder);
    table.encoder = from.encoder;
  }
  free_tables_.pop_back();
  table.open = true;
  table.indexed = from.indexed;
  table.retention = from.retention;
  table.prompt_tokens = from.prompt_tokens;
  table.branch_tokens = static_cast<uint32_t>(from.tokens.size());
  table.sealed = from.sealed;
  table.root = from.root;
  table.borrowed = from.borrowed;
  table.stale_tail = from.stale_tail;
  table.tokens.assign(from.tokens.begin(), from.tokens.end());
  table.slots = from.slots;
  table.chain.assign(from.chain.begin(), from.chain.begin() + from.sealed);
  if (table.root) index_.add_reference(*table.root);
  for (const NodeId node : table.chain) index_.add_reference(node);
  if (table.borrowed) index_.add_reference(*table.borrowed);
  refresh_views(table);
  note_sharing();
  return Lease(this, index);
}

// A contiguous sequence can not share: its copy gets a run of the same length.
bool Cache::copy_run(const Table& from, Table& to, uint32_t entries) {
  if (!take_run(to, static_cast<uint32_t>(from.groups[0].blocks.size()))) return false;
  for (uint32_t i = 0; i < entries; ++i) {
    std::copy_n(from.groups[0].pointers[i], pool_.block_bytes(0), to.groups[0].pointers[i]);
  }
  return true;
}

std::optional<Pin> Cache::pin(const Lease& lease) {
  Table& table = table_of(lease);
  if (table.sealed * block_tokens() + block_tokens() > table.tokens.size()) seal_tail(table);
  if (table.sealed == 0 && !table.borrowed) return std::nullopt;
  const NodeId last = table.borrowed ? *table.borrowed : table.chain[table.sealed - 1];
  for (uint32_t g = 0; g < token_groups(); ++g) {
    uint32_t more = 0;
    for (std::optional<NodeId> node = last; node; node = index_.node(*node).parent) {
      if (index_.block(*node, g) && index_.node(*node).pins == 0) ++more;
    }
    const uint64_t limit = uint64_t{pool_.blocks_max(g)} * options_.pinned_percent_max / 100;
    if (uint64_t{pinned_blocks_[g]} + more > limit) return std::nullopt;
  }
  for (std::optional<NodeId> node = last; node; node = index_.node(*node).parent) pin_node(*node);
  return Pin(this, last);
}

void Cache::pin_node(NodeId node) {
  if (index_.node(node).pins == 0) {
    for (uint32_t g = 0; g < token_groups(); ++g) {
      const std::optional<BlockRef> block = index_.block(node, g);
      if (!block) continue;
      ++pinned_blocks_[g];
      if (queues_[g].contains(block->id)) queues_[g].remove(block->id);
    }
  }
  index_.add_pin(node);
}

void Cache::unpin(NodeId last) {
  for (std::optional<NodeId> next = last; next;) {
    const NodeId id = *next;
    const PrefixIndex::Node& node = index_.node(id);
    next = node.parent;
    for (uint32_t g = 0; g < token_groups() && node.pins == 1; ++g) {
      const std::optional<BlockRef> block = index_.block(id, g);
      if (!block) continue;
      --pinned_blocks_[g];
      if (pool_.state(block->id) != BlockState::kCached) continue;
      queues_[g].insert(block->id, node.retention, node.reused ? Worth::kReused : Worth::kSeenOnce);
    }
    index_.drop_pin(id);
    erase_if_empty(id);
  }
}

}  // namespace kvasir::kv
