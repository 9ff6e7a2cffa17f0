// The llama family of transformers, as the papers write it: pre-norm residual blocks of attention
// with rotary positions (arXiv:2104.09864), grouped KV heads (arXiv:2305.13245), RMSNorm
// (arXiv:1910.07467) and SwiGLU (arXiv:2002.05202).
//
// Thread: engine thread only; it shares its work with the pool. Allocates: create() only.
#pragma once

#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/attention_plan.h"
#include "model/config.h"
#include "model/model.h"
#include "model/rope.h"
#include "model/weights.h"
#include "model/workspace.h"

namespace kvasir::model {

// What a transformer borrows; all of it must outlive the transformer.
struct TransformerParts {
  const ModelConfig* config = nullptr;
  const ModelWeights* weights = nullptr;
  const kernels::KernelTable* kernels = nullptr;
  base::ThreadPool* pool = nullptr;
  kernels::AttentionOrder attention_order = kernels::AttentionOrder::kPairs;
};

class Transformer final : public Model {
 public:
  static base::Result<std::unique_ptr<Transformer>> create(const TransformerParts& parts,
                                                           const BatchLimits& limits);

  void forward(const Batch& batch, base::Span2D<float> logits) override;
  void encode(const EncoderInput&) override { CHECK(has_encoder()); }
  bool has_encoder() const override { return false; }
  uint32_t vocab_size() const override { return config_.vocab_size; }
  uint32_t layers() const override { return config_.layers; }

 private:
  // One matrix product of a stage: output = input * layer.
  struct Product {
    const Linear* layer;
    base::Span2D<float> output;
  };

  Transformer(const TransformerParts& parts, const BatchLimits& limits, Workspace workspace);

  void embed(const Batch& batch);
  void attention_block(const LayerWeights& layer, uint32_t layer_index, const Batch& batch);
  void feed_forward_block(const LayerWeights& layer, size_t rows);
  void output_logits(const Batch& batch, base::Span2D<float> logits);

  void rotate_and_store(const Batch& batch, uint32_t layer_index);
  void attend(const Batch& batch, uint32_t layer_index);
  void attend_item(const Batch& batch, uint32_t layer_index, const AttentionItem& item);
  template <typename Prepare>
  void linear(base::Span2D<float> input, std::span<const Product> products, const Prepare& prepare);
  void multiply(std::span<const Product> products, base::Span2D<const float> input,
                const quant::QuantizedRows& quantized, base::Range range);
  void normalize(std::span<const float> input, std::span<const float> weight,
                 std::span<float> output);
  template <typename Work>
  void for_rows(size_t rows, const Work& work);

  const ModelConfig& config_;
  const ModelWeights& weights_;
  const kernels::KernelTable& kernels_;
  const kernels::AttentionOrder attention_order_;
  base::ThreadPool& pool_;
  BatchLimits limits_;
  RopeTable rope_;
  Workspace workspace_;

  // Of the current batch; the same for every layer.
  std::vector<uint32_t> sequence_of_row_;
  AttentionPlan attention_plan_;
  std::span<const AttentionItem> attention_items_;
  std::vector<std::atomic<bool>> early_parts_done_;  // of items cut in two, by KV head
};

}  // namespace kvasir::model
