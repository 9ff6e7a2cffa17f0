#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "kv/testing.h"

namespace kvasir::kv {
namespace {

std::unique_ptr<PrefixIndex> make_index(uint32_t nodes, DigestFunction digest = sha256_chain) {
  return std::make_unique<PrefixIndex>(
      PrefixIndex::Options{.nodes_max = nodes, .block_tokens = kTestBlockTokens, .digest = digest});
}

NodeId add(PrefixIndex& index, std::optional<NodeId> parent, std::span<const TokenId> tokens) {
  const Digest& above = parent ? index.node(*parent).digest : index.seed();
  return index.insert(parent, index.digest_after(above, tokens), tokens);
}

NodeId add_root(PrefixIndex& index, uint8_t id = 0) {
  return add(index, std::nullopt, words_of(tenant(id)));
}

std::optional<NodeId> find(const PrefixIndex& index, std::optional<NodeId> parent,
                           std::span<const TokenId> tokens) {
  const Digest& above = parent ? index.node(*parent).digest : index.seed();
  return index.find(parent, index.digest_after(above, tokens), tokens);
}

void give_bytes(PrefixIndex& index, NodeId node) {
  index.set_block(node, 0, BlockRef{.id = BlockId{index_of(node)}});
}

std::vector<TokenId> random_tokens(std::mt19937& random, uint32_t alphabet) {
  std::vector<TokenId> tokens(1 + random() % kTestBlockTokens);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % alphabet);
  return tokens;
}

uint32_t shared(std::span<const TokenId> a, std::span<const TokenId> b) {
  return static_cast<uint32_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

TEST(PrefixIndex, an_equal_digest_is_not_enough_for_a_hit) {
  const auto everything_collides = [](const Digest&, std::span<const TokenId>) { return Digest{}; };
  const auto index = make_index(16, everything_collides);
  const NodeId a = add_root(*index, 1);
  const NodeId b = add_root(*index, 2);
  const NodeId below_a = add(*index, a, counting(16));
  EXPECT_EQ(find(*index, a, counting(16)), below_a);
  EXPECT_FALSE(find(*index, b, counting(16)).has_value());     // another parent
  EXPECT_FALSE(find(*index, a, counting(16, 1)).has_value());  // other tokens
  EXPECT_FALSE(find(*index, a, counting(15)).has_value());     // a prefix of them
  EXPECT_EQ(find(*index, std::nullopt, words_of(tenant(2))), b);
  index->check_invariants();
}

TEST(PrefixIndex, random_trees_with_truncated_digests_find_exactly_what_was_inserted) {
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto index = make_index(600, eight_bit_digest);
    std::vector<NodeId> nodes = {add_root(*index, 0), add_root(*index, 1)};
    std::map<std::pair<uint32_t, std::vector<TokenId>>, NodeId> twin;
    while (!index->full()) {
      const NodeId parent = nodes[random() % nodes.size()];
      const std::vector<TokenId> tokens = random_tokens(random, 2);
      const auto known = twin.find({index_of(parent), tokens});
      const std::optional<NodeId> found = find(*index, parent, tokens);
      ASSERT_EQ(found.has_value(), known != twin.end());
      if (found) {
        ASSERT_EQ(*found, known->second);
      } else {
        nodes.push_back(add(*index, parent, tokens));
        twin.emplace(std::pair{index_of(parent), tokens}, nodes.back());
      }
    }
    index->check_invariants();
    for (const auto& [key, node] : twin) {
      ASSERT_EQ(find(*index, NodeId{key.first}, key.second), node);
    }
  }
}

TEST(PrefixIndex, the_closest_of_thousands_of_children_shares_as_much_as_a_naive_search_finds) {
  for (const uint32_t alphabet : {2U, 3U, 50U}) {
    SCOPED_TRACE(testing::Message() << "alphabet " << alphabet);
    std::mt19937 random(alphabet);
    const auto index = make_index(5000);
    const NodeId root = add_root(*index);
    std::vector<std::vector<TokenId>> children;
    while (children.size() < 4000) {
      const std::vector<TokenId> tokens = random_tokens(random, alphabet);
      if (find(*index, root, tokens)) continue;
      give_bytes(*index, add(*index, root, tokens));
      children.push_back(tokens);
    }
    for (int query = 0; query < 300; ++query) {
      const std::vector<TokenId> tokens = random_tokens(random, alphabet);
      uint32_t best = 0;
      for (const auto& child : children) best = std::max(best, shared(child, tokens));
      const std::optional<PrefixIndex::Shared> closest = index->closest_child(root, tokens);
      ASSERT_EQ(closest ? closest->tokens : 0, best);
      if (closest) {
        ASSERT_EQ(shared(index->node(closest->node).tokens, tokens), best);
      }
    }
  }
}

TEST(PrefixIndex, the_closest_child_has_bytes) {
  const auto index = make_index(16);
  const NodeId root = add_root(*index);
  const NodeId near = add(*index, root, counting(16));
  std::vector<TokenId> tokens = counting(16);
  tokens[9] = 99;
  const NodeId far = add(*index, root, tokens);
  EXPECT_FALSE(index->closest_child(root, counting(16)).has_value());
  give_bytes(*index, far);
  EXPECT_EQ(index->closest_child(root, counting(16))->node, far);
  EXPECT_EQ(index->closest_child(root, counting(16))->tokens, 9U);
  give_bytes(*index, near);
  EXPECT_EQ(index->closest_child(root, counting(16))->node, near);
  EXPECT_FALSE(index->closest_child(root, counting(16, 50)).has_value());
  EXPECT_EQ(index->first_child_with_bytes(root), near);
}

TEST(PrefixIndex, the_node_left_longest_ago_is_the_oldest_idle_one) {
  const auto index = make_index(16);
  const NodeId root = add_root(*index);
  const NodeId a = add(*index, root, counting(16, 0));
  const NodeId b = add(*index, root, counting(16, 100));
  EXPECT_EQ(index->oldest_idle(), a);  // the root has children: it is not idle
  index->add_reference(a);
  EXPECT_EQ(index->oldest_idle(), b);
  index->drop_reference(a);
  EXPECT_EQ(index->oldest_idle(), b);
  index->erase(b);
  EXPECT_EQ(index->oldest_idle(), a);
  index->erase(a);
  EXPECT_EQ(index->oldest_idle(), root);
  index->check_invariants();
}

TEST(PrefixIndex, a_parent_whose_last_child_goes_is_older_than_what_is_idle) {
  const auto index = make_index(16);
  const NodeId root = add_root(*index);
  const NodeId parent = add(*index, root, counting(16));
  const NodeId child = add(*index, parent, counting(16));
  add(*index, root, counting(16, 50));
  EXPECT_EQ(index->oldest_idle(), child);
  index->erase(child);
  EXPECT_EQ(index->oldest_idle(), parent);
}

TEST(PrefixIndex, a_reference_to_an_erased_node_is_stale_and_its_place_is_used_again) {
  const auto index = make_index(2);
  const NodeId root = add_root(*index);
  const NodeId node = add(*index, root, counting(16));
  const NodeRef before = index->ref(node);
  index->raise_retention(node, Retention::kHigh);
  index->mark_reused(node);
  EXPECT_TRUE(index->full());
  index->erase(node);
  EXPECT_TRUE(index->is_stale(before));
  const NodeId again = add(*index, root, counting(7));
  EXPECT_EQ(again, node);
  EXPECT_TRUE(index->is_stale(before));
  EXPECT_FALSE(index->node(again).reused);
  EXPECT_EQ(index->node(again).retention, Retention::kLow);
  index->check_invariants();
}

TEST(PrefixIndex, references_counted_anew_mend_those_that_are_wrong) {
  const auto index = make_index(4);
  const NodeId root = add_root(*index);
  index->add_reference(root);
  std::vector<uint32_t> counted(4);
  EXPECT_EQ(index->reconcile_references(counted, /*repair=*/false), 1U);
  EXPECT_EQ(index->node(root).references, 1U);
  EXPECT_EQ(index->reconcile_references(counted, /*repair=*/true), 1U);
  EXPECT_EQ(index->node(root).references, 0U);
  EXPECT_EQ(index->oldest_idle(), root);
  index->check_invariants();
}

// Inserts, references and erases at random; the order of idle nodes is that of a naive list.
TEST(PrefixIndex, idle_order_agrees_with_a_naive_list) {
  for (uint32_t seed = 1; seed <= 10; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto index = make_index(20);
    const NodeId root = add_root(*index);
    index->add_reference(root);
    std::vector<NodeId> idle;
    std::vector<NodeId> used;
    TokenId next = 0;
    for (int step = 0; step < 500; ++step) {
      const auto action = static_cast<uint32_t>(random() % 3);
      if (action == 0 && !index->full()) {
        idle.push_back(add(*index, root, counting(16, next += 16)));
      } else if (action == 1 && !idle.empty()) {
        const size_t chosen = random() % idle.size();
        index->add_reference(idle[chosen]);
        used.push_back(idle[chosen]);
        idle.erase(idle.begin() + static_cast<ptrdiff_t>(chosen));
      } else if (action == 2 && !used.empty()) {
        index->drop_reference(used.back());
        idle.push_back(used.back());
        used.pop_back();
      } else if (!idle.empty()) {
        index->erase(idle.front());
        idle.erase(idle.begin());
      }
      ASSERT_EQ(index->oldest_idle(), idle.empty() ? std::nullopt : std::optional(idle.front()));
      index->check_invariants();
    }
  }
}

}  // namespace
}  // namespace kvasir::kv
