#include "model/attention_plan.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>

namespace kvasir::model {
namespace {

constexpr uint32_t kBlockTokens = 32;

// Sequences with tables of blocks that stand for memory which nobody reads.
class Rows {
 public:
  // Blocks are numbers; equal ones are the same block.
  void add(uint32_t first_position, uint32_t tokens, const std::vector<int>& blocks) {
    std::vector<std::byte*>& table = tables_.emplace_back();
    for (const int block : blocks) table.push_back(&memory_[static_cast<size_t>(block)]);
    table.resize((first_position + tokens + kBlockTokens - 1) / kBlockTokens, &memory_.back());
    for (size_t i = blocks.size(); i < table.size(); ++i) table[i] = &memory_[next_private_++];
    kv::GroupView& view = views_.emplace_back(kv::GroupView{.layout = &layout_, .blocks = table});
    sequences_.push_back({.view = {.groups = {&view, 1}},
                          .first_row = rows_,
                          .tokens = tokens,
                          .first_position = first_position});
    rows_ += tokens;
  }
  std::vector<AttentionItem> plan(size_t threads = 2, uint32_t kv_heads = 2) {
    const ModelConfig config{.heads = 3 * kv_heads, .kv_heads = kv_heads, .head_dim = 16};
    AttentionPlan plan(config, {.rows_max = 512, .sequences_max = 64, .logit_rows_max = 64},
                       threads);
    const std::span<const AttentionItem> items = plan.make({.sequences = sequences_});
    return {items.begin(), items.end()};
  }
  // Sequences of the items of KV head 0 with what they have in common, by their first one.
  std::map<uint32_t, std::pair<uint32_t, uint32_t>> in_common() {
    std::map<uint32_t, std::pair<uint32_t, uint32_t>> found;
    for (const AttentionItem& item : plan()) {
      if (item.kv_head == 0) found[item.sequence] = {item.sequences, item.keys_common};
    }
    return found;
  }

 private:
  kv::BlockLayout layout_{{.layers = 1, .kv_heads = 2, .head_dim = 16}, kBlockTokens};
  std::vector<std::byte> memory_ = std::vector<std::byte>(20000);
  size_t next_private_ = 10000;
  std::deque<std::vector<std::byte*>> tables_;
  std::deque<kv::GroupView> views_;
  std::vector<SequenceRows> sequences_;
  uint32_t rows_ = 0;
};

std::vector<int> blocks(int first, uint32_t tokens) {
  std::vector<int> numbers;
  for (uint32_t t = 0; t < tokens; t += kBlockTokens) numbers.push_back(first++);
  return numbers;
}

TEST(AttentionPlan, every_row_and_head_is_covered_once) {
  Rows rows;
  rows.add(0, 40, {});
  rows.add(700, 1, blocks(0, 544));
  rows.add(640, 1, blocks(0, 544));
  rows.add(3, 1, {});
  rows.add(100, 16, {});
  std::map<std::pair<uint32_t, uint32_t>, int> covered;  // row, head
  const std::vector<uint32_t> first_rows{0, 40, 41, 42, 43};
  for (const AttentionItem& item : rows.plan()) {
    for (uint32_t s = 0; s < item.sequences; ++s) {
      for (uint32_t t = 0; t < item.tokens; ++t) {
        ++covered[{first_rows[item.sequence + s] + item.first_token + t, item.kv_head}];
      }
    }
  }
  EXPECT_EQ(covered.size(), 2 * 59u);
  for (const auto& [row, times] : covered) EXPECT_EQ(times, 1) << row.first;
}

TEST(AttentionPlan, neighbours_with_the_same_blocks_read_whole_spans_of_them_once) {
  Rows rows;
  rows.add(1200, 1, blocks(0, 1056));
  rows.add(1100, 1, blocks(0, 1056));
  rows.add(1100, 1, blocks(500, 1056));
  EXPECT_EQ(rows.in_common(),
            (std::map<uint32_t, std::pair<uint32_t, uint32_t>>{{0, {2, 1024}}, {2, {1, 0}}}));
}

TEST(AttentionPlan, less_than_a_span_is_not_worth_it) {
  Rows rows;
  rows.add(600, 1, blocks(0, 480));
  rows.add(600, 1, blocks(0, 480));
  EXPECT_EQ(rows.in_common().size(), 2u);
}

// The position that a row writes lies in a block of its own, but a shared one could not hold more
// than it sees either.
TEST(AttentionPlan, nobody_reads_past_its_own_position) {
  Rows rows;
  rows.add(511, 1, blocks(0, 512));
  rows.add(2000, 1, blocks(0, 512));
  EXPECT_EQ(rows.in_common().at(0), std::pair(2u, 512u));
  Rows shorter;
  shorter.add(510, 1, blocks(0, 512));
  shorter.add(2000, 1, blocks(0, 512));
  EXPECT_EQ(shorter.in_common().at(0), std::pair(1u, 0u));
}

TEST(AttentionPlan, a_sequence_joins_only_if_that_saves_reads) {
  Rows rows;  // two have 2,048 tokens in common, the third 512 of these
  std::vector<int> other = blocks(0, 512);
  rows.add(3000, 1, blocks(0, 2048));
  rows.add(3000, 1, blocks(0, 2048));
  rows.add(3000, 1, other);
  EXPECT_EQ(rows.in_common().at(0), std::pair(2u, 2048u));
  EXPECT_EQ(rows.in_common().at(2), std::pair(1u, 0u));
}

TEST(AttentionPlan, an_item_has_so_many_sequences_at_most) {
  Rows rows;
  for (int i = 0; i < 20; ++i) rows.add(600, 1, blocks(0, 512));
  EXPECT_EQ(rows.in_common(), (std::map<uint32_t, std::pair<uint32_t, uint32_t>>{
                                  {0, {8, 512}}, {8, {8, 512}}, {16, {4, 512}}}));
}

TEST(AttentionPlan, the_longest_item_comes_first) {
  Rows rows;
  rows.add(10, 1, {});
  rows.add(0, 40, {});
  rows.add(2000, 1, {});
  const std::vector<AttentionItem> items = rows.plan();
  for (size_t i = 1; i < items.size(); ++i) EXPECT_GE(items[i - 1].keys, items[i].keys);
  EXPECT_EQ(items.front().sequence, 2u);
}

// Keys of each KV head, and where each thread would end if all keys took the same time.
TEST(AttentionPlan, a_lone_row_is_cut_so_that_threads_end_together) {
  Rows rows;
  rows.add(4095, 1, {});
  for (const auto& [threads, kv_heads] : {std::pair(2u, 3u), {4u, 5u}, {3u, 8u}, {2u, 1u}}) {
    SCOPED_TRACE(testing::Message() << threads << " threads, " << kv_heads << " heads");
    std::map<uint32_t, uint32_t> computed;
    std::map<uint32_t, uint64_t> part_ends;
    std::multiset<uint64_t> free_at;
    for (size_t t = 0; t < threads; ++t) free_at.insert(0);
    for (const AttentionItem& item : rows.plan(threads, kv_heads)) {
      EXPECT_EQ(computed[item.kv_head], item.keys_from) << "behind the part it goes on from";
      computed[item.kv_head] = item.keys_until == 0 ? 4096 : item.keys_until;
      const uint64_t begin = *free_at.begin();
      EXPECT_GE(begin, part_ends[item.kv_head]) << "nobody waits";
      free_at.erase(free_at.begin());
      part_ends[item.kv_head] = begin + item.keys;
      free_at.insert(begin + item.keys);
    }
    EXPECT_EQ(computed.size(), kv_heads);
    for (const auto& [head, keys] : computed) EXPECT_EQ(keys, 4096u) << head;
    const uint64_t ideal = std::max<uint64_t>(4096, 4096 * kv_heads / threads);
    EXPECT_LE(*free_at.rbegin(), ideal + kernels::kAttentionSpanKeys);
  }
}

}  // namespace
}  // namespace kvasir::model
