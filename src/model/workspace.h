// Activations of one forward pass, in one buffer sized once from the model and the batch limits.
//
// Thread: engine thread; its workers write disjoint rows. Allocates: create() only.
#pragma once

#include "base/aligned_buffer.h"
#include "base/result.h"
#include "base/span2d.h"
#include "kernels/kernels.h"
#include "model/config.h"
#include "model/model.h"
#include "quant/activations.h"

namespace kvasir::model {

// One named part of the workspace: what `kvasir calc` prints.
struct WorkspaceTerm {
  const char* name;
  uint64_t size_bytes;
};

struct Workspace {
  // Shapes with rows = limits.rows_max.
  base::Span2D<float> residual;    // [rows, embedding]
  base::Span2D<float> normed;      // [rows, embedding]
  base::Span2D<float> queries;     // [rows, heads * head_dim]
  base::Span2D<float> keys;        // [rows, kv_heads * head_dim]
  base::Span2D<float> values;      // [rows, kv_heads * head_dim]
  base::Span2D<float> attended;    // [rows, heads * head_dim]
  base::Span2D<float> projected;   // [rows, embedding], what a block adds to the residual
  base::Span2D<float> gate;        // [rows, feed_forward]
  base::Span2D<float> up;          // [rows, feed_forward]
  base::Span2D<float> rope_cos;    // [rows, rotated_dims / 2]
  base::Span2D<float> rope_sin;    // [rows, rotated_dims / 2]
  base::Span2D<float> logits_in;   // [limits.logit_rows_max, embedding]
  quant::QuantizedRows quantized;  // [rows, widest input of a linear layer]
  // [kv_heads, sequences_max * heads_per_kv_head]
  base::Span2D<kernels::AttentionSums> attention_sums;

  base::AlignedBuffer memory;

  static base::Result<Workspace> create(const ModelConfig& config, const BatchLimits& limits);

  // The same arithmetic without the memory.
  static std::vector<WorkspaceTerm> terms(const ModelConfig& config, const BatchLimits& limits);
};

}  // namespace kvasir::model
