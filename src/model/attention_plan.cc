#include "model/attention_plan.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "base/check.h"

namespace kvasir::model {
namespace {

constexpr uint32_t kItemTokens = kernels::kAttentionItemTokens;

// Keys that both sequences' tokens see in the same blocks, as far as whole spans go.
uint32_t keys_in_common(const SequenceRows& a, const SequenceRows& b) {
  const auto blocks = [](const SequenceRows& s) { return s.view.groups[0].blocks; };
  const auto end = std::ranges::mismatch(blocks(a), blocks(b)).in1;
  const auto shared = static_cast<uint32_t>(end - blocks(a).begin());
  const uint32_t tokens = shared * a.view.groups[0].layout->block_tokens();
  const uint32_t seen = std::min({tokens, a.first_position + 1, b.first_position + 1});
  return seen - seen % kernels::kAttentionSpanKeys;
}

}  // namespace

AttentionPlan::AttentionPlan(const ModelConfig& config, const BatchLimits& limits, size_t threads)
    : kv_heads_(config.kv_heads),
      threads_(static_cast<uint32_t>(threads)),
      items_max_((size_t{limits.rows_max} / kItemTokens + limits.sequences_max + 1) *
                 config.kv_heads) {
  items_.reserve(items_max_);
}

std::span<const AttentionItem> AttentionPlan::make(const Batch& batch) {
  items_.clear();
  const bool is_one_row = batch.sequences.size() == 1 && batch.sequences[0].tokens == 1;
  if (is_one_row && kv_heads_ % threads_ != 0) {
    cut(batch.sequences[0].first_position + 1);
    return items_;
  }
  for (uint32_t s = 0; s < batch.sequences.size();) {
    if (batch.sequences[s].tokens > 1) {
      add_prefill(batch, s);
      ++s;
    } else {
      s += add_decode(batch, s);
    }
  }
  std::ranges::sort(items_, [](const AttentionItem& a, const AttentionItem& b) {
    if (a.keys != b.keys) return a.keys > b.keys;
    return std::tie(a.sequence, a.first_token, a.kv_head) <
           std::tie(b.sequence, b.first_token, b.kv_head);
  });
  return items_;
}

void AttentionPlan::add_prefill(const Batch& batch, uint32_t sequence) {
  const SequenceRows& rows = batch.sequences[sequence];
  for (uint32_t first = 0; first < rows.tokens; first += kItemTokens) {
    const uint32_t tokens = std::min(kItemTokens, rows.tokens - first);
    const uint64_t keys = uint64_t{rows.first_position} + first + tokens;
    add({sequence, 1, first, tokens, 0, 0, keys * tokens});
  }
}

// Takes sequences together as long as that saves more reads. Returns how many they are.
uint32_t AttentionPlan::add_decode(const Batch& batch, uint32_t sequence) {
  const std::span<const SequenceRows> rest = batch.sequences.subspan(sequence);
  uint64_t keys = uint64_t{rest[0].first_position} + 1;
  uint32_t common = 0;
  uint32_t count = 1;
  while (count < std::min<size_t>(kCommonSequences, rest.size()) && rest[count].tokens == 1) {
    const uint32_t with_next = keys_in_common(rest[0], rest[count]);
    const uint32_t next = count == 1 ? with_next : std::min(common, with_next);
    if (count * next <= (count - 1) * common) break;
    common = next;
    keys += uint64_t{rest[count].first_position} + 1;
    ++count;
  }
  add({sequence, count, 0, 1, 0, common, keys});
  return count;
}

void AttentionPlan::add(AttentionItem item) {
  for (item.kv_head = 0; item.kv_head < kv_heads_; ++item.kv_head) items_.push_back(item);
  CHECK(items_.size() <= items_max_);
}

// Fills one thread after the other to the same length. An item that does not fit is cut: its later
// part ends this thread's time, the earlier one begins the next one's, so that the two never meet.
// (R. McNaughton, Scheduling with Deadlines and Loss Functions, 1959.) Three heads on two threads:
//
//   |------ 0 ------|- 1, late -|
//   |- 1, early -|------ 2 ------|
void AttentionPlan::cut(uint32_t keys) {
  constexpr uint32_t kSpan = kernels::kAttentionSpanKeys;
  const uint32_t spans = (keys + kSpan - 1) / kSpan;
  const uint32_t room = std::max(spans, (kv_heads_ * spans + threads_ - 1) / threads_);
  uint32_t left = room;
  for (uint32_t head = 0; head < kv_heads_; ++head) {
    AttentionItem item{.sequences = 1, .tokens = 1, .kv_head = head, .keys = keys};
    if (left == 0) left = room;
    if (left >= spans) {
      items_.push_back(item);
      left -= spans;
      continue;
    }
    item.keys_until = (spans - left) * kSpan;
    item.keys = item.keys_until;
    items_.push_back(item);
    item.keys_from = std::exchange(item.keys_until, 0);
    item.keys = keys - item.keys_from;
    items_.push_back(item);
    left = room - (spans - left);
  }
  const auto turn = [](const AttentionItem& item) {
    return item.keys_until > 0 ? 0 : item.keys_from == 0 ? 1 : 2;
  };
  std::ranges::sort(items_, [&](const AttentionItem& a, const AttentionItem& b) {
    return std::tuple(turn(a), b.keys, a.kv_head) < std::tuple(turn(b), a.keys, b.kv_head);
  });
  CHECK(items_.size() <= items_max_);
}

}  // namespace kvasir::model
