// kernels: attention of a model with many layers, over keys and values as the cache holds them.
#include <fmt/format.h>

#include <algorithm>

#include "bench/kernels.h"
#include "kv/layout.h"

namespace kvasir::bench {
namespace {

// SmolLM2-135M: a small model with many layers, as long contexts are tried on.
constexpr kv::GroupShape kGroup{.layers = 30, .kv_heads = 3, .head_dim = 64};
constexpr uint32_t kGroupHeads = 3;

// Query tokens of one sequence, after `depth` others, in some of the model's layers.
struct AttentionCase {
  std::string_view name;
  uint32_t tokens = 0;
  uint32_t depth = 0;
  uint32_t layers = 0;
  bool is_memory_bound = false;
};
constexpr AttentionCase kAttentionCases[] = {{"decode", 1, 4096, kGroup.layers, true},
                                             {"prefill", 128, 1024, 2, false}};

// Blocks of one KV group, as the cache would hold them.
std::vector<std::byte> block_pattern(const kv::BlockLayout& layout) {
  std::vector<std::byte> block(layout.block_bytes());
  const size_t head_dim = layout.tile().head_dim;
  const std::vector<float> rows = random_floats(2 * head_dim * layout.block_tokens());
  for (uint32_t layer = 0; layer < layout.group().layers; ++layer) {
    for (uint32_t head = 0; head < layout.group().kv_heads; ++head) {
      for (uint32_t slot = 0; slot < layout.block_tokens(); ++slot) {
        const std::span row(&rows[2 * head_dim * slot], 2 * head_dim);
        quant::store_key(layout.tile(), row.first(head_dim), slot,
                         &block[layout.key_offset(layer, head)]);
        quant::store_value(layout.tile(), row.last(head_dim), slot,
                           &block[layout.value_offset(layer, head)]);
      }
    }
  }
  return block;
}

// One attention stage in all layers of a case, cut into items as the transformer does.
class AttentionStage {
 public:
  AttentionStage(const KernelSetting& setting, const kv::BlockLayout& layout,
                 const AttentionCase& what)
      : setting_(setting),
        layout_(layout),
        case_(what),
        width_(size_t{kGroup.kv_heads} * kGroupHeads * layout.tile().head_dim),
        pieces_((what.tokens + kernels::kAttentionItemTokens - 1) / kernels::kAttentionItemTokens),
        queries_(random_floats(what.tokens * width_)),
        out_(what.layers * queries_.size()),
        blocks_(layout.blocks_for(what.depth + what.tokens)) {}

  void run() {
    const std::span<std::byte> memory =
        setting_.limits.next(blocks_.size() * layout_.block_bytes(), layout_.block_bytes());
    for (size_t i = 0; i < blocks_.size(); ++i) blocks_[i] = &memory[i * layout_.block_bytes()];
    setting_.pool.for_chunks(size_t{case_.layers} * kGroup.kv_heads * pieces_, 1,
                             [&](size_t, base::Range range) { attend(range.begin); });
  }

  KernelWork work() const {
    const quant::KvTileShape& tile = layout_.tile();
    const double keys = case_.depth + (case_.tokens + 1) / 2.0;  // that a query sees on average
    const double tiles = 2.0 * case_.layers * kGroup.kv_heads;
    KernelWork work{.bytes = tiles * (case_.depth + case_.tokens) *
                             static_cast<double>(tile.tile_bytes()) / tile.block_tokens,
                    .macs = tiles * kGroupHeads * case_.tokens * keys * tile.head_dim};
    if (case_.is_memory_bound) return work;
    work.peak = attention_dot(setting_.engine);
    return work;
  }

 private:
  void attend(size_t item) {
    const auto layer = static_cast<uint32_t>(item / (size_t{kGroup.kv_heads} * pieces_));
    const auto head = static_cast<uint32_t>(item / pieces_ % kGroup.kv_heads);
    const auto first = static_cast<uint32_t>(item % pieces_) * kernels::kAttentionItemTokens;
    const size_t offset = first * width_ + size_t{head} * kGroupHeads * layout_.tile().head_dim;
    setting_.kernels.attend_in(setting_.engine.attention_order)(
        {.tile = layout_.tile(),
         .blocks = blocks_.data(),
         .key_offset = layout_.key_offset(layer, head),
         .value_offset = layout_.value_offset(layer, head),
         .first_position = case_.depth + first,
         .tokens = std::min(kernels::kAttentionItemTokens, case_.tokens - first),
         .heads = kGroupHeads,
         .token_stride = width_,
         .queries = &queries_[offset],
         .out = &out_[layer * queries_.size() + offset],
         .scale = 0.125F});
  }

  const KernelSetting& setting_;
  const kv::BlockLayout& layout_;
  const AttentionCase& case_;
  size_t width_;     // of a token's queries
  uint32_t pieces_;  // of the query tokens
  std::vector<float> queries_;
  std::vector<float> out_;
  std::vector<const std::byte*> blocks_;
};

base::Status report_attention(const KernelSetting& setting, const kv::BlockLayout& layout,
                              const AttentionCase& what) {
  const quant::KvTileShape& tile = layout.tile();
  AttentionStage stage(setting, layout, what);
  boost::json::object line =
      kernel_line(setting, fmt::format("attend {} {}@{}", what.name, what.tokens, what.depth),
                  setting.pool.threads());
  line["kv_dtype"] = quant::kv_dtype_name(tile.dtype);
  line["block_tokens"] = tile.block_tokens;
  line["head_dim"] = tile.head_dim;
  line["heads"] = kGroupHeads;
  line["tokens"] = what.tokens;
  line["depth"] = what.depth;
  RETURN_IF_ERROR(report_share(setting, stage.work(), std::move(line), [&] { stage.run(); }));
  return {};
}

}  // namespace

DotKind attention_dot(const api::EngineOptions& engine) {
  const auto fast_isa = engine.attention_order == kernels::AttentionOrder::kTiles
                            ? kernels::Isa::kAmx
                            : kernels::Isa::kAvx512Bf16;
  const bool in_bf16 = engine.kv_dtype == quant::KvDtype::kBF16 && engine.kernels->isa == fast_isa;
  return in_bf16 ? DotKind::kBF16 : DotKind::kF32;
}

base::Status report_attentions(const KernelSetting& setting) {
  kv::GroupShape group = kGroup;
  group.dtype = setting.engine.kv_dtype;
  const kv::BlockLayout layout(group, setting.engine.block_tokens);
  setting.limits.fill(block_pattern(layout));
  for (const AttentionCase& what : kAttentionCases) {
    RETURN_IF_ERROR(report_attention(setting, layout, what));
  }
  return {};
}

}  // namespace kvasir::bench
