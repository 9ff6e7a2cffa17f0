// The parameters of a model, packed for the kernels: one copy in memory, in one arena.
// Thread: immutable after load.
#pragma once

#include <span>
#include <vector>

#include "base/aligned_buffer.h"
#include "quant/packed.h"

namespace kvasir::model {

// y = W x + b
struct Linear {
  quant::PackedMatrix weight;   // [out, in]
  std::span<const float> bias;  // [out], or empty
};

struct LayerWeights {
  std::span<const float> attention_norm;     // [embedding]
  Linear query;                              // [heads * head_dim, embedding]
  Linear key;                                // [kv_heads * head_dim, embedding]
  Linear value;                              // [kv_heads * head_dim, embedding]
  Linear attention_output;                   // [embedding, heads * head_dim]
  std::span<const float> feed_forward_norm;  // [embedding]
  Linear gate;                               // [feed_forward, embedding]
  Linear up;                                 // [feed_forward, embedding]
  Linear down;                               // [embedding, feed_forward]
};

struct ModelWeights {
  base::AlignedBuffer arena;            // everything below points into it
  quant::PackedMatrix token_embedding;  // [vocab, embedding]
  std::vector<LayerWeights> layers;
  std::span<const float> output_norm;  // [embedding]
  Linear output;                       // [vocab, embedding]; tied: the token embedding
};

}  // namespace kvasir::model
