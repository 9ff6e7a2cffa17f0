// From private to shared and back to nothing: sealing, promises, dropping nodes.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

void Cache::seal_full_blocks(uint32_t index) {
  Table& table = tables_[index];
  while (table.indexed && (table.sealed + 1) * block_tokens() <= table.tokens.size()) {
    if (!is_private(table, table.sealed)) return;  // a fork has it, too: the last one seals it
    if (!seal_block(index, table.sealed)) {
      // Every node of the index is in use: the rest of this sequence stays private.
      table.indexed = false;
      withdraw_promises(index);
    }
  }
}

bool Cache::seal_block(uint32_t index, uint32_t block) {
  Table& table = tables_[index];
  const NodeId parent = block == 0 ? *table.root : table.chain[block - 1];
  const auto tokens = block_of(table.tokens, block);
  if (table.chain.size() == block) {
    const std::optional<NodeId> node = node_for(parent, tokens);
    if (!node) return false;
    index_.add_reference(*node);
    table.chain.push_back(*node);
  }
  const NodeId node = table.chain[block];
  if (index_.node(node).promised_by == index) ++totals_.promises_kept;
  index_.set_promise(node, std::nullopt);
  index_.raise_retention(node, table.retention);
  drop_superseded(parent, tokens);
  give_bytes(table, block, node);
  table.sealed = block + 1;
  seen_.sealed(index_.node(node).fingerprint, index_.node(node).domain_tag);
  return true;
}

// The node with this identity, made if there is none. nullopt: every node is in use.
std::optional<NodeId> Cache::node_for(std::optional<NodeId> parent,
                                      std::span<const TokenId> tokens) {
  const Digest& above = parent ? index_.node(*parent).digest : index_.seed();
  const Digest digest = index_.digest_after(above, tokens);
  if (const std::optional<NodeId> node = index_.find(parent, digest, tokens)) return node;
  return make_node(parent, digest, tokens);
}

// A new node; the one left longest ago makes room for it.
std::optional<NodeId> Cache::make_node(std::optional<NodeId> parent, const Digest& digest,
                                       std::span<const TokenId> tokens) {
  while (index_.full()) {
    const std::optional<NodeId> oldest = index_.oldest_idle();
    if (!oldest) return std::nullopt;
    drop_node(*oldest);
  }
  return index_.insert(parent, digest, tokens);
}

// The node gets the block's bytes; where it has equal ones already, the sequence adopts those.
void Cache::give_bytes(Table& table, uint32_t block, NodeId node) {
  for (uint32_t g = 0; g < token_groups(); ++g) {
    GroupTable& group = table.groups[g];
    if (block < group.first) continue;
    const BlockId own = group.blocks[block];
    const std::optional<BlockRef> known = index_.block(node, g);
    if (!known) {
      pool_.seal(own);
      index_.set_block(node, g, pool_.ref(own));
      owners_[index_of(own)] = node;
      if (index_.node(node).pins > 0) ++pinned_blocks_[g];
      continue;
    }
    if (known->id == own) continue;
    CHECK(!pool_.is_stale(*known));
    if (options_.verify) {
      CHECK(std::memcmp(pool_.data(own), pool_.data(known->id), pool_.block_bytes(g)) == 0);
    }
    add_block_reference(known->id);
    release_block(own, Worth::kSeenOnce);
    group.blocks[block] = known->id;
    group.pointers[block] = pool_.data(known->id);
    ++totals_.blocks_deduplicated;
  }
}

// A short sibling whose tokens all stand at the front of `tokens` has nothing to offer any more.
void Cache::drop_superseded(NodeId parent, std::span<const TokenId> tokens) {
  const std::optional<PrefixIndex::Shared> sibling = index_.closest_child(parent, tokens);
  if (!sibling || sibling->tokens == tokens.size()) return;
  const PrefixIndex::Node& node = index_.node(sibling->node);
  const bool is_prefix = sibling->tokens == node.tokens.size();
  if (is_prefix && node.references == 0 && node.child_count == 0) drop_node(sibling->node);
}

// The last tokens of a sequence that ends become a short block.
void Cache::seal_tail(Table& table) {
  const uint32_t full = table.sealed * block_tokens();
  const auto tail = std::span<const TokenId>(table.tokens).subspan(full);
  if (!table.indexed || tail.empty() || tail.size() >= block_tokens()) return;
  if (table.borrowed || !tail_is_private(table)) return;
  if (table.stale_tail) clear_private_tail(table);
  const NodeId parent = table.sealed == 0 ? *table.root : table.chain[table.sealed - 1];
  const std::optional<PrefixIndex::Shared> sibling = index_.closest_child(parent, tail);
  if (sibling && sibling->tokens == tail.size()) return;  // another block begins with it
  drop_superseded(parent, tail);
  table.borrowed = node_for(parent, tail);
  if (!table.borrowed) return;
  index_.add_reference(*table.borrowed);
  index_.raise_retention(*table.borrowed, table.retention);
  give_bytes(table, table.sealed, *table.borrowed);
}

// Announces the full blocks of the prompt that this sequence will compute. Nobody else may have
// announced them: then the rest is left to them, too.
void Cache::promise_rest(uint32_t index, std::span<const TokenId> prompt) {
  Table& table = tables_[index];
  if (!table.indexed || options_.publish != Publish::kWhenSealed) return;
  for (uint32_t i = table.sealed; (i + 1) * block_tokens() <= prompt.size(); ++i) {
    const NodeId parent = i == 0 ? *table.root : table.chain[i - 1];
    const auto tokens = block_of(prompt, i);
    const Digest digest = index_.digest_after(index_.node(parent).digest, tokens);
    if (index_.find(parent, digest, tokens)) return;
    const std::optional<NodeId> node = make_node(parent, digest, tokens);
    if (!node) return;
    index_.add_reference(*node);
    index_.set_promise(*node, index);
    table.chain.push_back(*node);
  }
}

void Cache::withdraw_promises(uint32_t index) {
  Table& table = tables_[index];
  while (table.chain.size() > table.sealed) {
    const NodeId node = table.chain.back();
    table.chain.pop_back();
    if (index_.node(node).promised_by == index) index_.set_promise(node, std::nullopt);
    index_.drop_reference(node);
    erase_if_empty(node);
  }
}

// Evicts what a node holds, and the node. It stays, without bytes, where a sequence had promised it
// but another one was faster: the first one will need it.
void Cache::drop_node(NodeId node) {
  for (uint32_t g = 0; g < token_groups(); ++g) {
    if (const std::optional<BlockRef> block = index_.block(node, g)) free_cached(block->id);
  }
  erase_if_empty(node);
}

// Evicts a node's block of one group and whatever is worth nothing without it.
void Cache::drop_subtree(NodeId node, uint32_t group) {
  if (shape(group).kind != GroupKind::kFull) {
    free_cached(index_.block(node, group)->id);
    erase_if_empty(node);
    return;
  }
  drop_descendants(node);
  drop_node(node);
}

void Cache::drop_descendants(NodeId node) {
  while (std::optional<NodeId> leaf = index_.first_child_with_bytes(node)) {
    while (const auto child = index_.first_child_with_bytes(*leaf)) leaf = child;
    drop_node(*leaf);
  }
}

// A node without bytes stays only for what stands on it.
void Cache::erase_if_empty(std::optional<NodeId> node) {
  while (node) {
    const PrefixIndex::Node& entry = index_.node(*node);
    const bool in_use = entry.references > 0 || entry.child_count > 0;
    if (!entry.exists || in_use || index_.has_bytes(*node)) return;
    const std::optional<NodeId> parent = entry.parent;
    index_.erase(*node);
    node = parent;
  }
}

}  // namespace kvasir::kv
