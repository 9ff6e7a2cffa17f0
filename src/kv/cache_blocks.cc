// Memory of the cache: taking, evicting, copying on write, moving between groups.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

uint32_t Cache::available(uint32_t group) const {
  return pool_.blocks_takeable(group) + queues_[group].size();
}

// All or nothing: after a failure the table holds what it held before.
bool Cache::make_room(Table& table, uint32_t tokens, uint32_t keep_back) {
  const uint32_t before = blocks_for(static_cast<uint32_t>(table.tokens.size()));
  const uint32_t after = blocks_for(tokens);
  const bool writes_tail = tokens > table.tokens.size() && table.tokens.size() % block_tokens() > 0;
  const bool copies = writes_tail && !tail_is_private(table);
  const uint32_t wanted = after - before;
  if (groups() == 1) {
    const uint32_t room = available(0) - std::min(available(0), keep_back);
    // Where a copy is what does not fit, the shared block itself may do.
    if (room < wanted) return false;
    if (copies && room == wanted && !take_over_tail(table)) return false;
  }
  bool fits = true;
  for (uint32_t i = before; fits && i < after; ++i) {
    for (uint32_t g = 0; fits && g < token_groups(); ++g) fits = push_free_block(table, g);
  }
  if (groups() > 1 && wanted > 0 && blocks_available() < keep_back) fits = false;
  // The copy comes last: it can not be undone.
  if (fits && copies && !tail_is_private(table)) fits = copy_shared_tail(table);
  if (!fits) release_blocks_from(table, before);
  if (fits && writes_tail && table.stale_tail) clear_private_tail(table);
  return fits;
}

// Another block at the end of the table, zero-filled.
bool Cache::push_free_block(Table& table, uint32_t group) {
  const std::optional<BlockId> block = take_block(group);
  if (!block) return false;
  pool_.clear(*block);
  push_block(table, group, *block);
  return true;
}

std::optional<BlockId> Cache::take_block(uint32_t group) {
  if (const std::optional<BlockId> block = pool_.take(group)) return block;
  if (evict_one(group) || (groups() > 1 && steal_slab(group))) return pool_.take(group);
  return std::nullopt;
}

bool Cache::evict_one(uint32_t group) {
  if (shape(group).kind == GroupKind::kCross) {
    const std::optional<uint32_t> entry = encoders_.oldest_idle();
    if (entry) drop_encoder_entry(*entry);
    return entry.has_value();
  }
  const std::optional<BlockId> block = queues_[group].next();
  if (!block) return false;
  const NodeId node = *owners_[index_of(*block)];
  totals_.evicted_age_us = index_.now_us() - index_.node(node).used_us;
  if (shape(group).kind == GroupKind::kFull) {
    drop_descendants(node);  // none, unless a repair has mixed up the order
    drop_node(node);
  } else {
    free_cached(*block);
    erase_if_empty(node);
  }
  return true;
}

// Frees an evictable block and takes it from its node.
void Cache::free_cached(BlockId block) {
  const uint32_t group = pool_.group(block);
  const NodeId node = *std::exchange(owners_[index_of(block)], std::nullopt);
  CHECK(index_.block(node, group) == pool_.ref(block));
  queues_[group].remove(block);
  index_.set_block(node, group, std::nullopt);
  pool_.free(block);
  ++totals_.groups[group].evicted;
  if (shape(group).kind == GroupKind::kFull) {
    seen_.evicted(index_.node(node).fingerprint, index_.node(node).domain_tag);
  }
}

// The slab of another group with fewest blocks in use, among those whose blocks find room
// elsewhere.
std::optional<uint32_t> Cache::slab_to_steal(uint32_t for_group) const {
  std::optional<uint32_t> best;
  uint32_t best_used = 0;
  for (uint32_t slab = 0; slab < pool_.slab_count(); ++slab) {
    const std::span<const BlockId> blocks = pool_.slab_blocks(slab);
    if (blocks.empty() || pool_.group(blocks[0]) == for_group) continue;
    const uint32_t group = pool_.group(blocks[0]);
    const bool cross = shape(group).kind == GroupKind::kCross;
    const auto evictable = [&](BlockId block) {
      return cross ? pool_.state(block) == BlockState::kCached : queues_[group].contains(block);
    };
    uint32_t used = 0;
    uint32_t unused = 0;
    for (const BlockId block : blocks) {
      const bool free = pool_.state(block) == BlockState::kFree || evictable(block);
      ++(free ? unused : used);
    }
    const BlockCounts counts = pool_.counts(group);
    const uint32_t everywhere = counts.of(BlockState::kFree) +
                                (cross ? counts.of(BlockState::kCached) : queues_[group].size());
    if (everywhere - unused < used || (best && used >= best_used)) continue;
    best = slab;
    best_used = used;
  }
  return best;
}

// Empties the slab of another group that holds least: cached blocks go, used ones move.
bool Cache::steal_slab(uint32_t for_group) {
  const std::optional<uint32_t> slab = slab_to_steal(for_group);
  if (!slab) return false;
  const std::span<const BlockId> blocks = pool_.slab_blocks(*slab);
  const uint32_t group = pool_.group(blocks[0]);
  const auto outside = [&](BlockId block) { return pool_.slab_of(block) != *slab; };
  for (const BlockId block : blocks) {
    if (shape(group).kind == GroupKind::kCross) {
      if (pool_.state(block) == BlockState::kCached) {
        drop_encoder_entry(*encoders_.owner_of(group, block));
      }
      continue;
    }
    if (queues_[group].contains(block)) drop_subtree(*owners_[index_of(block)], group);
  }
  const auto used = static_cast<uint32_t>(std::ranges::count_if(
      blocks, [&](BlockId b) { return pool_.state(b) != BlockState::kFree; }));
  // Free blocks of this slab are held while places elsewhere are taken.
  moving_.clear();
  uint32_t found = 0;
  while (found < used) {
    const std::optional<BlockId> place = pool_.take(group);
    if (!place && evict_one(group)) continue;
    if (!place) break;
    moving_.push_back(*place);
    if (outside(*place)) ++found;
  }
  uint32_t next = 0;
  for (const BlockId block : blocks) {
    if (found < used || pool_.state(block) == BlockState::kFree) continue;
    if (std::ranges::find(moving_, block) != moving_.end()) continue;
    while (!outside(moving_[next])) ++next;
    relocate(block, moving_[next]);
    moving_.erase(moving_.begin() + next);
  }
  for (const BlockId block : moving_) {
    CHECK(pool_.drop_reference(block));
    pool_.free(block);
  }
  return found >= used && pool_.blocks_takeable(for_group) > 0;
}

// Moves a referenced block and patches everything that points to it.
void Cache::relocate(BlockId from, BlockId to) {
  const uint32_t group = pool_.group(from);
  pool_.move(from, to);
  ++totals_.blocks_relocated;
  for (Table& table : tables_) {
    if (!table.open) continue;
    GroupTable& entries = table.groups[group];
    for (uint32_t i = entries.first; i < entries.blocks.size(); ++i) {
      if (entries.blocks[i] != from) continue;
      entries.blocks[i] = to;
      entries.pointers[i] = pool_.data(to);
    }
  }
  if (shape(group).kind == GroupKind::kCross) {
    std::vector<BlockId>& blocks = encoders_.entry(*encoders_.owner_of(group, from)).blocks[group];
    std::ranges::replace(blocks, from, to);
    return;
  }
  const std::optional<NodeId> node = std::exchange(owners_[index_of(from)], std::nullopt);
  if (!node) return;
  owners_[index_of(to)] = node;
  index_.set_block(*node, group, pool_.ref(to));
}

// Whether nobody else sees this block, which has not left the table's windows.
bool Cache::is_private(const Table& table, uint32_t block) const {
  for (uint32_t g = 0; g < token_groups(); ++g) {
    if (block < table.groups[g].first) continue;
    const BlockId id = table.groups[g].blocks[block];
    if (pool_.state(id) != BlockState::kFilling || pool_.references(id) != 1) return false;
  }
  return true;
}

bool Cache::tail_is_private(const Table& table) const {
  return is_private(table, static_cast<uint32_t>(table.tokens.size() / block_tokens()));
}

// Copy on write: the first slots of a block that others see, too, go to a block of our own.
//   block: 0 ...... used ...... block_tokens
//          |- copied -|- zero -|
bool Cache::copy_shared_tail(Table& table) {
  const auto last = static_cast<uint32_t>(table.tokens.size() / block_tokens());
  const auto end = static_cast<uint32_t>(table.groups[0].blocks.size());
  // The copies stand in the table from the start: taking one may relocate those before it.
  for (uint32_t g = 0; g < token_groups(); ++g) {
    if (const std::optional<BlockId> block = take_block(g)) {
      push_block(table, g, *block);
      continue;
    }
    release_blocks_from(table, end);
    return take_over_tail(table);
  }
  for (uint32_t g = 0; g < token_groups(); ++g) {
    GroupTable& group = table.groups[g];
    std::memcpy(group.pointers[end], group.pointers[last], pool_.block_bytes(g));
    release_block(group.blocks[last], Worth::kSeenOnce);
    group.blocks[last] = group.blocks[end];
    group.pointers[last] = group.pointers[end];
    group.blocks.pop_back();
    group.pointers.pop_back();
    --logical_blocks_;
    ++totals_.blocks_copied;
  }
  if (table.borrowed) index_.drop_reference(*std::exchange(table.borrowed, std::nullopt));
  clear_private_tail(table);
  return true;
}

// The last resort of a full pool: a shared block that only this sequence uses becomes its own.
bool Cache::take_over_tail(Table& table) {
  if (!table.borrowed || index_.node(*table.borrowed).references > 1) return false;
  const NodeId node = *std::exchange(table.borrowed, std::nullopt);
  drop_descendants(node);
  const auto last = static_cast<uint32_t>(table.tokens.size() / block_tokens());
  for (uint32_t g = 0; g < token_groups(); ++g) {
    const BlockId block = table.groups[g].blocks[last];
    pool_.unseal(block);
    owners_[index_of(block)].reset();
    index_.set_block(node, g, std::nullopt);
  }
  index_.drop_reference(node);
  erase_if_empty(node);
  clear_private_tail(table);
  return true;
}

// Where others still see the tail, it is cleared before it is written.
void Cache::clear_private_tail(Table& table) {
  const auto used = static_cast<uint32_t>(table.tokens.size() % block_tokens());
  const auto last = static_cast<uint32_t>(table.tokens.size() / block_tokens());
  table.stale_tail = used > 0 && (table.borrowed || !tail_is_private(table));
  if (used == 0 || table.stale_tail) return;
  for (uint32_t g = 0; g < token_groups(); ++g) {
    const BlockLayout& layout = layouts_[g];
    std::byte* block = table.groups[g].pointers[last];
    for (uint32_t layer = 0; layer < layout.group().layers; ++layer) {
      for (uint32_t head = 0; head < layout.group().kv_heads; ++head) {
        quant::clear_slots(layout.tile(), used, block + layout.key_offset(layer, head),
                           block + layout.value_offset(layer, head));
      }
    }
  }
}

void Cache::add_block_reference(BlockId block) {
  const uint32_t group = pool_.group(block);
  if (queues_[group].contains(block)) queues_[group].remove(block);
  pool_.add_reference(block);
}

void Cache::release_block(BlockId block, Worth worth) {
  if (!pool_.drop_reference(block)) return;
  if (pool_.state(block) == BlockState::kFilling) {
    pool_.free(block);
    return;
  }
  pool_.cache(block);
  const PrefixIndex::Node& node = index_.node(*owners_[index_of(block)]);
  if (node.pins > 0) return;  // held back until it is unpinned
  if (worth != Worth::kOutOfWindow) worth = node.reused ? Worth::kReused : Worth::kSeenOnce;
  queues_[pool_.group(block)].insert(block, node.retention, worth);
}

// Tail first, so that a chain is evicted from its end.
void Cache::release_blocks_from(Table& table, uint32_t first) {
  for (uint32_t g = 0; g < token_groups(); ++g) {
    GroupTable& group = table.groups[g];
    while (group.blocks.size() > first) {
      const bool left = group.blocks.size() <= group.first;
      if (!left) release_block(group.blocks.back(), Worth::kSeenOnce);
      if (!left) --logical_blocks_;
      group.blocks.pop_back();
      group.pointers.pop_back();
    }
    group.first = std::min(group.first, first);
  }
}

// Blocks that no later row of this sequence reads. Those that a new sequence would need, at the
// prompt's end and where this one branched off, keep their worth.
void Cache::leave_window(Table& table) {
  const auto tokens = static_cast<uint32_t>(table.tokens.size());
  for (uint32_t g = 0; g < token_groups(); ++g) {
    GroupTable& group = table.groups[g];
    const uint32_t needed = std::min(first_needed(g, tokens), blocks_for(tokens));
    for (; group.first < needed; ++group.first) {
      const uint32_t begin = group.first * block_tokens();
      const auto stands_before = [&](uint32_t position) {
        return begin < position && begin + block_tokens() + shape(g).window_tokens > position;
      };
      const bool wanted = stands_before(table.prompt_tokens) || stands_before(table.branch_tokens);
      release_block(group.blocks[group.first], wanted ? Worth::kSeenOnce : Worth::kOutOfWindow);
      --logical_blocks_;
      group.pointers[group.first] = nullptr;
    }
  }
}

void Cache::push_block(Table& table, uint32_t group, BlockId block) {
  table.groups[group].blocks.push_back(block);
  table.groups[group].pointers.push_back(pool_.data(block));
  ++logical_blocks_;
}

}  // namespace kvasir::kv
