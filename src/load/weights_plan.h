// Where every weight of a model comes from and where it goes: made, and checked against the shapes
// that the configuration demands, before any memory is taken.
//
// Thread: any. Allocates: yes.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "gguf/gguf_file.h"
#include "model/config.h"
#include "quant/packed.h"

namespace kvasir::load {

enum class WeightsMode : uint8_t {
  kNative,  // the lossless kernel format of each stored type
  kF32,     // everything decoded
};

struct MatrixPlan {
  quant::PackSource source;  // points into the file
  quant::PackedFormat format = quant::PackedFormat::kF32;
  uint64_t offset_bytes = 0;  // into the arena; a multiple of 64

  uint64_t packed_bytes() const {
    return quant::packed_size_bytes(format, source.rows, source.columns);
  }
};

struct VectorPlan {
  quant::TensorType type = quant::TensorType::kF32;
  std::span<const std::byte> bytes;  // points into the file
  size_t size = 0;
  uint64_t offset_bytes = 0;  // into the arena; a multiple of 64
};

struct LinearPlan {
  MatrixPlan weight;
  std::optional<VectorPlan> bias;
};

// The fields are those of model::LayerWeights.
struct LayerPlan {
  VectorPlan attention_norm;
  LinearPlan query;
  LinearPlan key;
  LinearPlan value;
  LinearPlan attention_output;
  VectorPlan feed_forward_norm;
  LinearPlan gate;
  LinearPlan up;
  LinearPlan down;
};

struct WeightsPlan {
  MatrixPlan token_embedding;
  std::vector<LayerPlan> layers;
  VectorPlan output_norm;
  std::optional<MatrixPlan> output;  // nullopt: the token embedding is used
  std::optional<VectorPlan> output_bias;
  uint64_t arena_bytes = 0;
  uint64_t parameters = 0;  // elements of all of the above
};

// Error: a tensor that is missing, has another shape or a type without decoder, or one whose
// presence asks for other mathematics; it is named.
base::Result<WeightsPlan> plan_weights(const gguf::GgufFile& file, const model::ModelConfig& config,
                                       WeightsMode mode);

}  // namespace kvasir::load
