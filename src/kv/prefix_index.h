// The prefix index: a tree of everything whose keys and values are cached or about to be. A node is
// a block's worth of tokens after the tokens of its parent; roots are cache domains.
//
//   root (domain) -- "You are ..." (32 tokens) -- "helpful ..." (32) -- "Hi" (short: 7 tokens)
//                                             \-- "terse ..." (32, promised: not computed yet)
//
// A node's identity is (digest, token ids, parent node): lookups go by digest and compare all
// three, so a digest that collides finds nothing wrong. Nodes outlive evicted bytes while they have
// children, so chains of a sliding window stay verifiable. Children of one parent are kept in
// lexicographic order of their tokens, those with bytes: the one that shares most leading tokens
// with a query is a neighbour of the query's place, however many there are.
//
// Thread: engine thread only. Allocates: constructor only.
// Invariants: a node's parent exists while it does; siblings differ; a node is in `idle` order
// exactly while it has no children and no references.
#pragma once

#include <boost/intrusive/list.hpp>
#include <boost/intrusive/set.hpp>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kv/block_pool.h"
#include "kv/eviction.h"
#include "kv/identity.h"

namespace kvasir::kv {

enum class NodeId : uint32_t {};
constexpr uint32_t index_of(NodeId id) {
  return static_cast<uint32_t>(id);
}

// A node as it was when it was looked at: stale once it has been erased.
struct NodeRef {
  NodeId id{};
  uint32_t generation = 0;
  bool operator==(const NodeRef&) const = default;
};

struct IndexNode;

// Siblings in lexicographic order of their tokens.
struct TokenOrder {
  bool operator()(const IndexNode& a, const IndexNode& b) const;
  bool operator()(const IndexNode& a, std::span<const TokenId> b) const;
  bool operator()(std::span<const TokenId> a, const IndexNode& b) const;
};

struct IndexNode {
  boost::intrusive::set_member_hook<> sibling_hook;
  boost::intrusive::list_member_hook<> idle_hook;
  boost::intrusive::set<
      IndexNode,
      boost::intrusive::member_hook<IndexNode, boost::intrusive::set_member_hook<>,
                                    &IndexNode::sibling_hook>,
      boost::intrusive::compare<TokenOrder>, boost::intrusive::constant_time_size<false>>
      children;
  uint32_t child_count = 0;  // with bytes or without
  std::span<const TokenId> tokens;
  Digest digest{};
  uint64_t fingerprint = 0;  // of all tokens from the root's first on, without the domain
  uint32_t domain_tag = 0;   // of the root: statistics compare it
  std::optional<NodeId> parent;
  uint32_t next_in_bucket = 0;
  uint32_t generation = 0;
  uint32_t references = 0;              // block tables and pins whose chain holds it
  uint32_t pins = 0;                    // keep its bytes from eviction; counted in references
  std::optional<uint32_t> promised_by;  // the block table that is computing it
  uint64_t used_us = 0;                 // when it was last taken or left
  Retention retention = Retention::kLow;
  bool reused = false;  // matched by a later sequence
  bool exists = false;
};

class PrefixIndex {
 public:
  using Node = IndexNode;

  // `nodes_max` nodes of up to `block_tokens` tokens, with room for a block of each group.
  struct Options {
    uint32_t nodes_max = 0;
    uint32_t block_tokens = 0;
    uint32_t groups = 1;
    DigestFunction digest = sha256_chain;
    Digest seed{};
  };
  explicit PrefixIndex(const Options& options);
  ~PrefixIndex();
  PrefixIndex(const PrefixIndex&) = delete;  // nodes are linked by address
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  Digest digest_after(const Digest& previous, std::span<const TokenId> tokens) const {
    return options_.digest(previous, tokens);
  }
  const Digest& seed() const { return options_.seed; }

  // The node with exactly this identity; `digest` is digest_after(the parent's, tokens).
  // Parent nullopt: a root, whose tokens are words_of(domain).
  std::optional<NodeId> find(std::optional<NodeId> parent, const Digest& digest,
                             std::span<const TokenId> tokens) const;
  // The child of `parent`, with bytes, that shares most leading tokens with
  // `tokens`, at least one.
  struct Shared {
    NodeId node{};
    uint32_t tokens = 0;
  };
  std::optional<Shared> closest_child(NodeId parent, std::span<const TokenId> tokens) const;
  bool has_children(NodeId parent) const { return at(parent).child_count > 0; }
  std::optional<NodeId> first_child_with_bytes(NodeId parent) const;

  bool full() const { return free_.empty(); }
  // A node without references, bytes or promise. Requires: !full(), find() gives nullopt.
  NodeId insert(std::optional<NodeId> parent, const Digest& digest,
                std::span<const TokenId> tokens);
  // Requires: no children, no references, no bytes.
  void erase(NodeId node);
  // The childless, unreferenced node that was left longest ago.
  std::optional<NodeId> oldest_idle() const;

  void add_reference(NodeId node);
  void drop_reference(NodeId node);
  // A pin is a reference, too.
  void add_pin(NodeId node);
  void drop_pin(NodeId node);
  void mark_reused(NodeId node) { at(node).reused = true; }
  // What "now" is for the times of last use.
  void set_now(uint64_t now_us) { now_us_ = now_us; }
  uint64_t now_us() const { return now_us_; }
  void raise_retention(NodeId node, Retention retention);
  void set_promise(NodeId node, std::optional<uint32_t> table) { at(node).promised_by = table; }
  void set_block(NodeId node, uint32_t group, std::optional<BlockRef> block);

  const Node& node(NodeId id) const { return at(id); }
  NodeRef ref(NodeId id) const { return {id, at(id).generation}; }
  bool is_stale(NodeRef ref) const { return nodes_[index_of(ref.id)].generation != ref.generation; }
  std::optional<BlockRef> block(NodeId node, uint32_t group) const {
    return blocks_[size_t{index_of(node)} * options_.groups + group];
  }
  bool has_bytes(NodeId node) const;  // in any group
  uint32_t nodes() const { return options_.nodes_max - static_cast<uint32_t>(free_.size()); }
  uint32_t nodes_max() const { return options_.nodes_max; }

  // References of every node, counted anew by the caller: mends what differs, returns how many.
  uint32_t reconcile_references(std::span<const uint32_t> counted, bool repair);
  // Aborts where the tree is not one. O(nodes).
  void check_invariants() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  using IdleList = boost::intrusive::list<
      Node,
      boost::intrusive::member_hook<Node, boost::intrusive::list_member_hook<>, &Node::idle_hook>,
      boost::intrusive::constant_time_size<false>>;

  const Node& at(NodeId id) const;
  Node& at(NodeId id) { return const_cast<Node&>(std::as_const(*this).at(id)); }
  NodeId id_of(const Node& node) const {
    return NodeId{static_cast<uint32_t>(&node - nodes_.data())};
  }
  uint32_t& bucket_of(const Digest& digest);
  uint32_t bucket_of(const Digest& digest) const {
    return const_cast<PrefixIndex*>(this)->bucket_of(digest);
  }
  bool is_idle(const Node& node) const { return node.references == 0 && node.child_count == 0; }

  Options options_;
  std::vector<Node> nodes_;
  std::vector<TokenId> tokens_;                  // [nodes_max, block_tokens]
  std::vector<std::optional<BlockRef>> blocks_;  // [nodes_max, groups]
  std::vector<uint32_t> buckets_;                // by digest: first node, linked
  std::vector<NodeId> free_;
  IdleList idle_;  // left longest ago first
  uint64_t now_us_ = 0;
};

}  // namespace kvasir::kv
