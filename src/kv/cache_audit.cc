// The books of the cache: statistics, recount, repair, and the laws that always hold.
#include <algorithm>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

CacheStats Cache::stats() const {
  CacheStats stats = totals_;
  double live = 0.0;
  for (uint32_t g = 0; g < groups(); ++g) {
    stats.groups[g].blocks = pool_.counts(g);
    stats.groups[g].block_bytes = layouts_[g].block_bytes();
    stats.pinned_bytes += uint64_t{pinned_blocks_[g]} * layouts_[g].block_bytes();
    if (g >= token_groups()) continue;
    stats.slots_allocated += uint64_t{stats.groups[g].blocks.referenced()} * block_tokens();
  }
  for (const Table& table : tables_) {
    if (!table.open) continue;
    ++stats.sequences;
    for (uint32_t g = 0; g < token_groups(); ++g) {
      const GroupTable& group = table.groups[g];
      for (uint32_t i = group.first; i < blocks_for(static_cast<uint32_t>(table.tokens.size()));
           ++i) {
        const size_t tokens =
            std::min<size_t>(table.tokens.size() - size_t{i} * block_tokens(), block_tokens());
        live += static_cast<double>(tokens) / pool_.references(group.blocks[i]);
      }
    }
  }
  stats.slots_live = static_cast<uint64_t>(live + 0.5);
  stats.nodes = index_.nodes();
  stats.nodes_max = index_.nodes_max();
  stats.blocks_logical = logical_blocks_;
  if (const std::optional<BlockId> next = queues_[0].next()) {
    const NodeId owner = *owners_[index_of(*next)];
    stats.oldest_cached_age_us = index_.now_us() - index_.node(owner).used_us;
  }
  return stats;
}

std::vector<std::vector<BlockState>> Cache::block_states() const {
  std::vector<std::vector<BlockState>> states(groups());
  for (uint32_t slab = 0; slab < pool_.slab_count(); ++slab) {
    for (const BlockId block : pool_.slab_blocks(slab)) {
      states[pool_.group(block)].push_back(pool_.state(block));
    }
  }
  return states;
}

void Cache::note_sharing() {
  if (logical_blocks_ <= totals_.blocks_logical_peak) return;
  uint32_t used = 0;
  for (uint32_t g = 0; g < groups(); ++g) used += pool_.counts(g).referenced();
  totals_.blocks_logical_peak = logical_blocks_;
  totals_.sharing_saved_at_peak = 1.0 - static_cast<double>(used) / logical_blocks_;
}

std::vector<uint32_t> Cache::count_block_references() const {
  std::vector<uint32_t> counted(pool_.ids_end());
  for (const Table& table : tables_) {
    for (uint32_t g = 0; table.open && g < groups(); ++g) {
      const GroupTable& group = table.groups[g];
      for (uint32_t i = group.first; i < group.blocks.size(); ++i) {
        ++counted[index_of(group.blocks[i])];
      }
    }
  }
  return counted;
}

std::vector<uint32_t> Cache::count_node_references() const {
  std::vector<uint32_t> counted(index_.nodes_max());
  for (uint32_t i = 0; i < counted.size(); ++i) counted[i] = index_.node(NodeId{i}).pins;
  for (const Table& table : tables_) {
    if (!table.open) continue;
    for (const NodeId node : table.chain) ++counted[index_of(node)];
    if (table.root) ++counted[index_of(*table.root)];
    if (table.borrowed) ++counted[index_of(*table.borrowed)];
  }
  return counted;
}

AuditReport Cache::audit(bool repair) {
  AuditReport report;
  const std::vector<uint32_t> blocks = count_block_references();
  report.node_references_wrong = index_.reconcile_references(count_node_references(), repair);
  for (uint32_t i = 0; i < blocks.size(); ++i) {
    const BlockId block{i};
    const bool encoded = shape(pool_.group(block)).kind == GroupKind::kCross;
    const bool owned = encoded ? encoders_.owner_of(pool_.group(block), block).has_value()
                               : owners_[i].has_value();
    const bool idle_state =
        pool_.state(block) == BlockState::kCached || pool_.state(block) == BlockState::kFree;
    const bool leaked = blocks[i] == 0 && !idle_state;
    if (pool_.references(block) != blocks[i] || leaked) {
      ++report.block_references_wrong;
      if (repair) pool_.repair(block, blocks[i], owned);
    }
    EvictionQueue& queue = queues_[pool_.group(block)];
    const bool belongs = !encoded && pool_.state(block) == BlockState::kCached && owned &&
                         index_.node(*owners_[i]).pins == 0;
    if (queue.contains(block) == belongs) continue;
    ++report.queue_entries_wrong;
    if (!repair) continue;
    if (belongs) {
      queue.insert(block, index_.node(*owners_[i]).retention, Worth::kSeenOnce);
    } else {
      queue.remove(block);
    }
  }
  return report;
}

void Cache::check_invariants() {
  pool_.check_invariants();
  index_.check_invariants();
  CHECK(audit(/*repair=*/false).ok());
  uint32_t closed = 0;
  uint32_t logical = 0;
  for (const Table& table : tables_) {
    if (table.open) {
      check_table(table);
    } else {
      ++closed;
      CHECK(table.tokens.empty() && table.chain.empty() && !table.root && !table.borrowed);
    }
    for (uint32_t g = 0; g < groups(); ++g) {
      const GroupTable& group = table.groups[g];
      CHECK(table.open || group.blocks.empty());
      CHECK(group.first <= group.blocks.size());
      CHECK(group.pointers.size() == group.blocks.size());
      logical += static_cast<uint32_t>(group.blocks.size()) - group.first;
    }
  }
  CHECK(logical == logical_blocks_);
  CHECK(closed == free_tables_.size());
  check_owners();
  check_encoders();
}

void Cache::check_table(const Table& table) const {
  CHECK(table.tokens.size() <= table.slots);
  CHECK(table.reserved || table.tokens.size() == table.slots);
  CHECK(table.sealed <= table.chain.size());
  std::optional<NodeId> parent = table.root;
  for (uint32_t i = 0; i < table.chain.size(); ++i) {
    const PrefixIndex::Node& node = index_.node(table.chain[i]);
    CHECK(node.parent == parent);
    if (i < table.sealed) {
      CHECK(std::ranges::equal(node.tokens, block_of(table.tokens, i)));
      CHECK(!node.promised_by);
    }
    parent = table.chain[i];
  }
  for (uint32_t g = 0; g < token_groups(); ++g) {
    const GroupTable& group = table.groups[g];
    CHECK(group.blocks.size() >= blocks_for(table.slots));
    CHECK(table.reserved || group.first <= first_needed(g, table.slots) ||
          group.first == group.blocks.size());
    for (uint32_t i = group.first; i < group.blocks.size(); ++i) {
      const BlockId block = group.blocks[i];
      CHECK(group.pointers[i] == pool_.data(block));
      if (i >= table.sealed) continue;
      CHECK(pool_.state(block) == BlockState::kSealed);
      CHECK(owners_[index_of(block)] == table.chain[i]);
    }
  }
}

// Every sealed or cached block belongs to the node that names it, and a chain in a full group has
// no gaps: what stands before a block is there as long as the block.
void Cache::check_owners() const {
  uint32_t pinned = 0;
  for (uint32_t i = 0; i < owners_.size(); ++i) {
    const BlockId block{i};
    const BlockState state = pool_.state(block);
    const bool encoded = shape(pool_.group(block)).kind == GroupKind::kCross;
    const bool shared = !encoded && (state == BlockState::kSealed || state == BlockState::kCached);
    CHECK(owners_[i].has_value() == shared);
    if (!shared) continue;
    const uint32_t g = pool_.group(block);
    const PrefixIndex::Node& node = index_.node(*owners_[i]);
    CHECK(index_.block(*owners_[i], g) == pool_.ref(block));
    if (node.pins > 0) ++pinned;
    const bool inner = node.parent && index_.node(*node.parent).parent;
    if (inner && shape(g).kind == GroupKind::kFull) CHECK(index_.block(*node.parent, g));
  }
  uint32_t counted = 0;
  for (const uint32_t count : pinned_blocks_) counted += count;
  CHECK(pinned == counted);
}

}  // namespace kvasir::kv
