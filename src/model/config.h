// The dimensions of a transformer of the llama family, checked against each other by load/.
// Thread: immutable after construction.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kvasir::model {

// Rotary position embedding (Su et al., arXiv:2104.09864): pair i of a head turns by
//   position * base^(-2i / rotated_dims) / frequency_factors[i] / linear_factor.
struct RopeConfig {
  uint32_t rotated_dims = 0;  // even, <= head_dim
  float base = 10000.0F;
  float linear_factor = 1.0F;
  std::vector<float> frequency_factors;  // Llama 3: [rotated_dims / 2]; empty: all 1
};

struct ModelConfig {
  std::string architecture;  // "llama"
  std::string name;          // for people; may be empty
  uint32_t vocab_size = 0;
  uint32_t context_length = 0;  // positions the model was trained for
  uint32_t layers = 0;
  uint32_t embedding_length = 0;  // the residual stream
  uint32_t feed_forward_length = 0;
  uint32_t heads = 0;
  uint32_t kv_heads = 0;  // divides heads
  uint32_t head_dim = 0;  // a multiple of 16, <= 256
  float rms_epsilon = 0.0F;
  float attention_scale = 0.0F;  // usually 1 / sqrt(head_dim)
  RopeConfig rope;

  uint32_t query_width() const { return heads * head_dim; }
  uint32_t kv_width() const { return kv_heads * head_dim; }
  uint32_t heads_per_kv_head() const { return heads / kv_heads; }
};

}  // namespace kvasir::model
