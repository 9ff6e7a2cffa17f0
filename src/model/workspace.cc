#include "model/workspace.h"

#include <algorithm>
#include <vector>

#include "base/checked_math.h"
#include "quant/packed.h"

namespace kvasir::model {
namespace {

constexpr size_t kAlignment = 64;

// Hands out consecutive aligned pieces; without memory it only adds up their sizes.
class Carver {
 public:
  explicit Carver(std::byte* memory) : memory_(memory) {}

  template <typename T>
  T* take(const char* name, uint64_t count) {
    T* piece = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + offset_bytes_);
    const uint64_t size_bytes = base::align_up(count * sizeof(T), kAlignment);
    offset_bytes_ += size_bytes;
    terms_.push_back({name, size_bytes});
    return piece;
  }
  base::Span2D<float> matrix(const char* name, uint64_t rows, uint64_t columns) {
    return {take<float>(name, rows * columns), rows, columns};
  }

  uint64_t size_bytes() const { return offset_bytes_; }
  std::vector<WorkspaceTerm> terms() { return std::move(terms_); }

 private:
  std::byte* memory_;
  uint64_t offset_bytes_ = 0;
  std::vector<WorkspaceTerm> terms_;
};

// Widest input of a linear layer, rounded up to whole 32-groups.
uint64_t widest_input(const ModelConfig& c) {
  const uint32_t widest = std::max({c.embedding_length, c.query_width(), c.feed_forward_length});
  return base::align_up(widest, quant::kGroupColumns);
}

Workspace carve(const ModelConfig& c, const BatchLimits& limits, Carver& carver) {
  const uint64_t rows = std::max(limits.rows_max, limits.logit_rows_max);
  const uint64_t widest = widest_input(c);
  const uint64_t groups = rows * (widest / quant::kGroupColumns);
  const uint64_t halves = rows * (widest / quant::kHalfColumns);
  Workspace w;
  w.residual = carver.matrix("residual", rows, c.embedding_length);
  w.normed = carver.matrix("normed", rows, c.embedding_length);
  w.queries = carver.matrix("queries", rows, c.query_width());
  w.keys = carver.matrix("keys", rows, c.kv_width());
  w.values = carver.matrix("values", rows, c.kv_width());
  w.attended = carver.matrix("attended", rows, c.query_width());
  w.projected = carver.matrix("projected", rows, c.embedding_length);
  w.gate = carver.matrix("gate", rows, c.feed_forward_length);
  w.up = carver.matrix("up", rows, c.feed_forward_length);
  w.rope_cos = carver.matrix("rope_cos", rows, c.rope.rotated_dims / 2);
  w.rope_sin = carver.matrix("rope_sin", rows, c.rope.rotated_dims / 2);
  w.logits_in = carver.matrix("logits_in", limits.logit_rows_max, c.embedding_length);
  w.quantized.rows = rows;
  w.quantized.codes = carver.take<int8_t>("quantized codes", rows * widest);
  w.quantized.scales = carver.take<float>("quantized scales", halves);
  w.quantized.code_sums = carver.take<int32_t>("quantized code sums", halves);
  w.quantized.sums = carver.take<float>("quantized sums", groups);
  const uint64_t sums = uint64_t{limits.sequences_max} * c.heads_per_kv_head();
  w.attention_sums = {carver.take<kernels::AttentionSums>("attention sums", c.kv_heads * sums),
                      c.kv_heads, sums};
  return w;
}

}  // namespace

base::Result<Workspace> Workspace::create(const ModelConfig& config, const BatchLimits& limits) {
  Carver measure(nullptr);
  carve(config, limits, measure);
  ASSIGN_OR_RETURN(base::AlignedBuffer memory, base::AlignedBuffer::create(measure.size_bytes()));
  Carver carver(memory.data());
  Workspace workspace = carve(config, limits, carver);
  workspace.memory = std::move(memory);
  return workspace;
}

std::vector<WorkspaceTerm> Workspace::terms(const ModelConfig& config, const BatchLimits& limits) {
  Carver measure(nullptr);
  carve(config, limits, measure);
  return measure.terms();
}

}  // namespace kvasir::model
