#include "kv/prefix_index.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"

namespace kvasir::kv {
namespace {

uint32_t shared_tokens(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t count = std::min(a.size(), b.size());
  return static_cast<uint32_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(count), b.begin()).first -
      a.begin());
}

}  // namespace

bool TokenOrder::operator()(const IndexNode& a, const IndexNode& b) const {
  return std::ranges::lexicographical_compare(a.tokens, b.tokens);
}
bool TokenOrder::operator()(const IndexNode& a, std::span<const TokenId> b) const {
  return std::ranges::lexicographical_compare(a.tokens, b);
}
bool TokenOrder::operator()(std::span<const TokenId> a, const IndexNode& b) const {
  return std::ranges::lexicographical_compare(a, b.tokens);
}

PrefixIndex::PrefixIndex(const Options& options)
    : options_(options),
      nodes_(options.nodes_max),
      tokens_(size_t{options.nodes_max} * options.block_tokens),
      blocks_(size_t{options.nodes_max} * options.groups),
      buckets_(std::bit_ceil(size_t{options.nodes_max} + 1), kNone) {
  CHECK(options.block_tokens >= kDomainWords);
  free_.reserve(options.nodes_max);
  for (uint32_t i = options.nodes_max; i-- > 0;) free_.push_back(NodeId{i});
}

PrefixIndex::~PrefixIndex() {
  for (Node& node : nodes_) node.children.clear();
  idle_.clear();
}

std::optional<NodeId> PrefixIndex::find(std::optional<NodeId> parent, const Digest& digest,
                                        std::span<const TokenId> tokens) const {
  for (uint32_t i = bucket_of(digest); i != kNone; i = nodes_[i].next_in_bucket) {
    const Node& node = nodes_[i];
    if (node.digest != digest) continue;
    if (node.parent != parent) continue;  // a node's parent lives at least as long as the node
    if (!std::ranges::equal(node.tokens, tokens)) continue;
    return NodeId{i};
  }
  return std::nullopt;
}

// The best child stands beside the place where `tokens` would be inserted.
std::optional<PrefixIndex::Shared> PrefixIndex::closest_child(
    NodeId parent, std::span<const TokenId> tokens) const {
  const auto& children = at(parent).children;
  const auto place = children.lower_bound(tokens, TokenOrder());
  std::optional<Shared> best;
  const auto consider = [&](const Node& child) {
    const uint32_t shared = shared_tokens(child.tokens, tokens);
    if (shared > (best ? best->tokens : 0)) best = Shared{id_of(child), shared};
  };
  if (place != children.end()) consider(*place);
  if (place != children.begin()) consider(*std::prev(place));
  return best;
}

std::optional<NodeId> PrefixIndex::first_child_with_bytes(NodeId parent) const {
  const auto& children = at(parent).children;
  if (children.empty()) return std::nullopt;
  return id_of(*children.begin());
}

NodeId PrefixIndex::insert(std::optional<NodeId> parent, const Digest& digest,
                           std::span<const TokenId> tokens) {
  CHECK(!full());
  CHECK(!tokens.empty());
  CHECK(tokens.size() <= options_.block_tokens);
  const NodeId id = free_.back();
  free_.pop_back();
  Node& node = nodes_[index_of(id)];
  CHECK(!node.exists);
  const auto room =
      std::span(tokens_).subspan(size_t{index_of(id)} * options_.block_tokens, tokens.size());
  std::ranges::copy(tokens, room.begin());
  node.tokens = room;
  node.digest = digest;
  node.parent = parent;
  node.exists = true;
  node.used_us = now_us_;
  uint32_t& bucket = bucket_of(digest);
  node.next_in_bucket = bucket;
  bucket = index_of(id);
  idle_.push_back(node);
  if (!parent) {
    node.domain_tag = domain_tag_of(digest);
    return id;
  }
  Node& above = at(*parent);
  node.domain_tag = above.domain_tag;
  node.fingerprint = fingerprint_chain(above.fingerprint, tokens);
  if (is_idle(above)) idle_.erase(IdleList::s_iterator_to(above));
  ++above.child_count;
  return id;
}

void PrefixIndex::erase(NodeId id) {
  Node& node = at(id);
  CHECK(is_idle(node));
  CHECK(!has_bytes(id));
  idle_.erase(IdleList::s_iterator_to(node));
  uint32_t* link = &bucket_of(node.digest);
  while (*link != index_of(id)) link = &nodes_[*link].next_in_bucket;
  *link = node.next_in_bucket;
  if (node.parent) {
    Node& above = at(*node.parent);
    --above.child_count;
    // It was left no later than its child was.
    if (is_idle(above)) idle_.push_front(above);
  }
  const uint32_t generation = node.generation;
  node.tokens = {};
  node.fingerprint = 0;
  node.parent.reset();
  node.generation = generation + 1;
  node.promised_by.reset();
  node.retention = Retention::kLow;
  node.reused = false;
  node.exists = false;
  free_.push_back(id);
}

std::optional<NodeId> PrefixIndex::oldest_idle() const {
  if (idle_.empty()) return std::nullopt;
  return id_of(idle_.front());
}

void PrefixIndex::add_reference(NodeId id) {
  Node& node = at(id);
  if (is_idle(node)) idle_.erase(IdleList::s_iterator_to(node));
  ++node.references;
  node.used_us = now_us_;
}

void PrefixIndex::drop_reference(NodeId id) {
  Node& node = at(id);
  CHECK(node.references > 0);
  --node.references;
  node.used_us = now_us_;
  if (is_idle(node)) idle_.push_back(node);
}

void PrefixIndex::add_pin(NodeId id) {
  add_reference(id);
  ++at(id).pins;
}

void PrefixIndex::drop_pin(NodeId id) {
  CHECK(at(id).pins > 0);
  --at(id).pins;
  drop_reference(id);
}

void PrefixIndex::raise_retention(NodeId id, Retention retention) {
  at(id).retention = std::max(at(id).retention, retention);
}

void PrefixIndex::set_block(NodeId node, uint32_t group, std::optional<BlockRef> block) {
  Node& entry = at(node);
  CHECK(entry.exists);
  const bool had_bytes = has_bytes(node);
  blocks_[size_t{index_of(node)} * options_.groups + group] = block;
  if (!entry.parent || has_bytes(node) == had_bytes) return;
  auto& siblings = at(*entry.parent).children;
  if (had_bytes) {
    siblings.erase(siblings.iterator_to(entry));
  } else {
    CHECK(siblings.insert(entry).second);  // siblings differ
  }
}

bool PrefixIndex::has_bytes(NodeId node) const {
  for (uint32_t g = 0; g < options_.groups; ++g) {
    if (block(node, g)) return true;
  }
  return false;
}

uint32_t PrefixIndex::reconcile_references(std::span<const uint32_t> counted, bool repair) {
  CHECK(counted.size() == nodes_.size());
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (node.references == counted[i]) continue;
    ++wrong;
    if (!repair || !node.exists) continue;
    const bool was_idle = is_idle(node);
    node.references = counted[i];
    if (was_idle && !is_idle(node)) idle_.erase(IdleList::s_iterator_to(node));
    if (!was_idle && is_idle(node)) idle_.push_back(node);
  }
  return wrong;
}

void PrefixIndex::check_invariants() const {
  uint32_t existing = 0;
  uint32_t children = 0;  // counted by their parents
  uint32_t linked = 0;    // in their parents' order
  uint32_t with_parent = 0;
  uint32_t idle = 0;
  for (uint32_t i = 0; i < nodes_.size(); ++i) {
    const Node& node = nodes_[i];
    if (!node.exists) {
      CHECK(node.references == 0);
      CHECK(!has_bytes(NodeId{i}));
      continue;
    }
    ++existing;
    if (is_idle(node)) ++idle;
    CHECK(is_idle(node) == node.idle_hook.is_linked());
    CHECK(find(node.parent, node.digest, node.tokens) == NodeId{i});
    if (!node.parent) continue;
    ++with_parent;
    const Node& above = at(*node.parent);
    CHECK(above.exists);
    CHECK(options_.digest(above.digest, node.tokens) == node.digest);
  }
  uint32_t with_bytes = 0;
  for (const Node& node : nodes_) {
    if (node.parent && has_bytes(id_of(node))) ++with_bytes;
    children += node.child_count;
    for (const Node& child : node.children) {
      CHECK(child.parent == id_of(node));
      ++linked;
    }
  }
  CHECK(existing == nodes());
  CHECK(linked == with_bytes);
  CHECK(children == with_parent);
  CHECK(idle == idle_.size());
}

const PrefixIndex::Node& PrefixIndex::at(NodeId id) const {
  CHECK(index_of(id) < nodes_.size());
  return nodes_[index_of(id)];
}

uint32_t& PrefixIndex::bucket_of(const Digest& digest) {
  uint64_t head = 0;
  std::memcpy(&head, digest.data(), sizeof(head));
  return buckets_[head & (buckets_.size() - 1)];
}

}  // namespace kvasir::kv
