#include "model/transformer.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/check.h"

namespace kvasir::model {
base::Result<std::unique_ptr<Transformer>> Transformer::create(const TransformerParts& parts,
                                                               const BatchLimits& limits) {
  CHECK(limits.rows_max > 0);
  CHECK(limits.logit_rows_max > 0);
  ASSIGN_OR_RETURN(Workspace workspace, Workspace::create(*parts.config, limits));
  return std::unique_ptr<Transformer>(new Transformer(parts, limits, std::move(workspace)));
}

Transformer::Transformer(const TransformerParts& parts, const BatchLimits& limits,
                         Workspace workspace)
    : config_(*parts.config),
      weights_(*parts.weights),
      kernels_(*parts.kernels),
      attention_order_(parts.attention_order),
      pool_(*parts.pool),
      limits_(limits),
      rope_(config_.rope),
      workspace_(std::move(workspace)),
      attention_plan_(config_, limits_, pool_.threads()),
      early_parts_done_(config_.kv_heads) {
  sequence_of_row_.reserve(limits_.rows_max);
}

void Transformer::forward(const Batch& batch, base::Span2D<float> logits) {
  const size_t rows = batch.tokens.size();
  CHECK(rows >= 1);
  CHECK(rows <= limits_.rows_max);
  CHECK(batch.sequences.size() <= limits_.sequences_max);
  CHECK(batch.logit_rows.size() <= limits_.logit_rows_max);

  sequence_of_row_.clear();
  for (uint32_t s = 0; s < batch.sequences.size(); ++s) {
    CHECK(batch.sequences[s].first_row == sequence_of_row_.size());
    sequence_of_row_.insert(sequence_of_row_.end(), batch.sequences[s].tokens, s);
  }
  CHECK(sequence_of_row_.size() == rows);

  embed(batch);
  attention_items_ = attention_plan_.make(batch);
  for (uint32_t i = 0; i < config_.layers; ++i) {
    attention_block(weights_.layers[i], i, batch);
    feed_forward_block(weights_.layers[i], rows);
  }
  if (!batch.logit_rows.empty()) output_logits(batch, logits);
}

// residual = embedding of each token; angles of each position.
void Transformer::embed(const Batch& batch) {
  for_rows(batch.tokens.size(), [&](size_t row) {
    const auto token = static_cast<size_t>(batch.tokens[row]);
    CHECK(token < config_.vocab_size);
    quant::unpack_row(weights_.token_embedding, token, workspace_.residual.row(row));
    const SequenceRows& sequence = batch.sequences[sequence_of_row_[row]];
    const auto offset = static_cast<uint32_t>(row - sequence.first_row);
    rope_.angles_at(sequence.first_position + offset, workspace_.rope_cos.row(row),
                    workspace_.rope_sin.row(row));
  });
}

// projected = attention(norm(residual)), after the residual has taken in what the layer before left
// in `projected`.
void Transformer::attention_block(const LayerWeights& layer, uint32_t layer_index,
                                  const Batch& batch) {
  const size_t rows = batch.tokens.size();
  Workspace& w = workspace_;
  linear(w.normed.rows_from(0, rows),
         std::array{Product{&layer.query, w.queries.rows_from(0, rows)},
                    Product{&layer.key, w.keys.rows_from(0, rows)},
                    Product{&layer.value, w.values.rows_from(0, rows)}},
         [&](size_t row) {
           if (layer_index > 0) kernels_.add(w.residual.row(row), w.projected.row(row));
           normalize(w.residual.row(row), layer.attention_norm, w.normed.row(row));
         });
  rotate_and_store(batch, layer_index);
  attend(batch, layer_index);
  linear(w.attended.rows_from(0, rows),
         std::array{Product{&layer.attention_output, w.projected.rows_from(0, rows)}},
         [](size_t) {});
}

// projected = down(silu(gate(n)) * up(n)) with n = norm(residual), after the residual has taken in
// the attention.
void Transformer::feed_forward_block(const LayerWeights& layer, size_t rows) {
  Workspace& w = workspace_;
  linear(w.normed.rows_from(0, rows),
         std::array{Product{&layer.gate, w.gate.rows_from(0, rows)},
                    Product{&layer.up, w.up.rows_from(0, rows)}},
         [&](size_t row) {
           kernels_.add(w.residual.row(row), w.projected.row(row));
           normalize(w.residual.row(row), layer.feed_forward_norm, w.normed.row(row));
         });
  linear(w.gate.rows_from(0, rows),
         std::array{Product{&layer.down, w.projected.rows_from(0, rows)}},
         [&](size_t row) { kernels_.silu_mul(w.gate.row(row), w.up.row(row), w.gate.row(row)); });
}

// logits = output(norm(residual)), for the wanted rows only, whose residual takes in the last
// layer's `projected` first
void Transformer::output_logits(const Batch& batch, base::Span2D<float> logits) {
  const size_t count = batch.logit_rows.size();
  CHECK(logits.rows == count);
  CHECK(logits.columns == config_.vocab_size);
  Workspace& w = workspace_;
  linear(w.logits_in.rows_from(0, count), std::array{Product{&weights_.output, logits}},
         [&](size_t i) {
           const size_t row = batch.logit_rows[i];
           kernels_.add(w.residual.row(row), w.projected.row(row));
           normalize(w.residual.row(row), weights_.output_norm, w.logits_in.row(i));
         });
}

// Turns queries and keys by their position, then writes keys and values to the cache. From here on
// everyone, this chunk included, reads them as stored.
void Transformer::rotate_and_store(const Batch& batch, uint32_t layer_index) {
  Workspace& w = workspace_;
  for_rows(batch.tokens.size(), [&](size_t row) {
    kernels_.rope_pairs(w.queries.row(row), config_.head_dim, w.rope_cos.row(row),
                        w.rope_sin.row(row));
    kernels_.rope_pairs(w.keys.row(row), config_.head_dim, w.rope_cos.row(row),
                        w.rope_sin.row(row));

    const SequenceRows& sequence = batch.sequences[sequence_of_row_[row]];
    const kv::GroupView& view = sequence.view.groups[0];
    const kv::BlockLayout& layout = *view.layout;
    const uint32_t position =
        sequence.first_position + static_cast<uint32_t>(row - sequence.first_row);
    std::byte* block = view.block_of(position);
    const uint32_t slot = view.slot_of(position);
    for (uint32_t head = 0; head < config_.kv_heads; ++head) {
      const size_t column = size_t{head} * config_.head_dim;
      quant::store_key(layout.tile(), w.keys.row(row).subspan(column, config_.head_dim), slot,
                       block + layout.key_offset(layer_index, head));
      quant::store_value(layout.tile(), w.values.row(row).subspan(column, config_.head_dim), slot,
                         block + layout.value_offset(layer_index, head));
    }
  });
  for (SequenceRows& sequence : batch.sequences) sequence.kv_rows_written += sequence.tokens;
}

void Transformer::attend(const Batch& batch, uint32_t layer_index) {
  for (std::atomic<bool>& done : early_parts_done_) done.store(false, std::memory_order_relaxed);
  pool_.for_chunks(attention_items_.size(), 1, [&](size_t, base::Range range) {
    attend_item(batch, layer_index, attention_items_[range.begin]);
  });
}

// First what the item's sequences have in common, span by span so that all of them find it in the
// caches, then what each has for itself.
void Transformer::attend_item(const Batch& batch, uint32_t layer_index, const AttentionItem& item) {
  const uint32_t group = config_.heads_per_kv_head();
  const auto attend_rows = kernels_.attend_in(attention_order_);
  const auto args_of = [&](uint32_t index) {
    const SequenceRows& sequence = batch.sequences[item.sequence + index];
    const kv::GroupView& view = sequence.view.groups[0];
    const kv::BlockLayout& layout = *view.layout;
    const size_t row = sequence.first_row + item.first_token;
    const size_t column = size_t{item.kv_head} * group * config_.head_dim;
    const size_t sums = size_t{item.sequence + index} * group;
    return kernels::AttentionArgs{
        .tile = layout.tile(),
        .blocks = view.blocks.data(),
        .key_offset = layout.key_offset(layer_index, item.kv_head),
        .value_offset = layout.value_offset(layer_index, item.kv_head),
        .first_position = sequence.first_position + item.first_token,
        .tokens = item.tokens,
        .heads = group,
        .token_stride = config_.query_width(),
        .queries = workspace_.queries.row(row).data() + column,
        .out = workspace_.attended.row(row).data() + column,
        .scale = config_.attention_scale,
        .sums = workspace_.attention_sums.row(item.kv_head).subspan(sums).data()};
  };
  for (uint32_t keys = 0; keys < item.keys_common; keys += kernels::kAttentionSpanKeys) {
    kernels::AttentionArgs args = args_of(0);
    args.tokens = item.sequences;
    args.keys_done = keys;
    args.keys_common = keys + kernels::kAttentionSpanKeys;
    attend_rows(args);
  }
  std::atomic<bool>& early_part_done = early_parts_done_[item.kv_head];
  if (item.keys_from > 0) early_part_done.wait(false, std::memory_order_acquire);
  for (uint32_t i = 0; i < item.sequences; ++i) {
    kernels::AttentionArgs args = args_of(i);
    args.keys_done = item.keys_common + item.keys_from;
    args.keys_common = item.keys_until;
    attend_rows(args);
  }
  if (item.keys_until == 0) return;
  early_part_done.store(true, std::memory_order_release);
  early_part_done.notify_one();
}

void Transformer::normalize(std::span<const float> input, std::span<const float> weight,
                            std::span<float> output) {
  kernels_.rms_norm(input, weight, config_.rms_epsilon, output);
}

// Several products of one input in two parallel stages: prepare(row) completes the input's rows,
// then the panels of all matrices, counted through, are shared out in pieces.
template <typename Prepare>
void Transformer::linear(base::Span2D<float> input, std::span<const Product> products,
                         const Prepare& prepare) {
  size_t panels = 0;
  bool quantize = false;
  for (const Product& product : products) {
    CHECK(product.layer->weight.columns == input.columns);
    panels += product.layer->weight.panels();
    quantize |= quant::is_integer(product.layer->weight.format);
  }
  quant::QuantizedRows quantized = workspace_.quantized;
  quantized.rows = input.rows;
  quantized.columns = input.columns;
  for_rows(input.rows, [&](size_t row) {
    prepare(row);
    if (quantize) kernels_.quantize(input, row, row + 1, quantized);
  });
  pool_.for_chunks(panels, kernels::panels_at_once(panels, pool_.threads()),
                   [&](size_t, base::Range range) { multiply(products, input, quantized, range); });
  for (const Product& product : products) {
    if (product.layer->bias.empty()) continue;
    for_rows(input.rows,
             [&](size_t row) { kernels_.add(product.output.row(row), product.layer->bias); });
  }
}

// The panels of `range`, counted through all products.
void Transformer::multiply(std::span<const Product> products, base::Span2D<const float> input,
                           const quant::QuantizedRows& quantized, base::Range range) {
  size_t first = 0;  // of the current product, among all panels
  for (const Product& product : products) {
    const quant::PackedMatrix& weight = product.layer->weight;
    const size_t begin = std::max(range.begin, first);
    const size_t end = std::min(range.end, first + weight.panels());
    if (begin < end) {
      const kernels::PanelRange own{begin - first, end - first};
      if (quant::is_integer(weight.format)) {
        kernels_.linear_q8(weight, quantized, own, product.output);
      } else {
        kernels_.linear_f32(weight, input, own, product.output);
      }
    }
    first += weight.panels();
  }
}

// work(row) for every row; one row is not worth waking anybody for.
template <typename Work>
void Transformer::for_rows(size_t rows, const Work& work) {
  if (rows == 1) {
    work(size_t{0});
    return;
  }
  pool_.for_ranges(rows, [&](size_t, base::Range range) {
    for (size_t row = range.begin; row < range.end; ++row) work(row);
  });
}

}  // namespace kvasir::model
