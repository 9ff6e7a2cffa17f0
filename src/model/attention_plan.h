// How a batch's attention is cut into items that threads take one by one. Which thread computes an
// item, and what an item covers, does not change its bits.
//
//   prefill      an item has up to kAttentionItemTokens tokens of one sequence
//   decode       an item has one token of one sequence ...
//   in common    ... or those of neighbouring sequences that begin with the same blocks: then it
//                reads what these hold once for all of them, as far as whole spans go
//   one decode   where a batch is but one row and its KV heads do not go up in the threads, some
//                items are cut in two at a span: the later part goes on with the earlier one's sums
//
// Thread: engine thread only. Allocates: create() only.
#pragma once

#include <span>
#include <vector>

#include "kernels/kernels.h"
#include "model/config.h"
#include "model/model.h"

namespace kvasir::model {

// Sequences of one item in common: enough to share every read, and few enough that a batch has an
// item for each thread.
constexpr uint32_t kCommonSequences = 8;

// One unit of attention work over one KV head.
struct AttentionItem {
  uint32_t sequence;     // the first of them
  uint32_t sequences;    // > 1: one token of each
  uint32_t first_token;  // within the sequence's rows
  uint32_t tokens;
  uint32_t kv_head;
  uint32_t keys_common;  // a multiple of kAttentionSpanKeys; 0 for one sequence
  uint64_t keys;         // to walk: how long the item takes, more or less
  // Parts of an item, multiples of kAttentionSpanKeys:
  uint32_t keys_from = 0;   // goes on from there, once the part before is done
  uint32_t keys_until = 0;  // ends there; 0: with the last key
};

class AttentionPlan {
 public:
  AttentionPlan(const ModelConfig& config, const BatchLimits& limits, size_t threads);

  // In the order in which threads take them: the longest first, so that they end together. A part
  // stands behind the one that it goes on from.
  std::span<const AttentionItem> make(const Batch& batch);

 private:
  void add_prefill(const Batch& batch, uint32_t sequence);
  uint32_t add_decode(const Batch& batch, uint32_t sequence);
  void add(AttentionItem item);
  void cut(uint32_t keys);

  uint32_t kv_heads_;
  uint32_t threads_;
  size_t items_max_;
  std::vector<AttentionItem> items_;
};

}  // namespace kvasir::model
