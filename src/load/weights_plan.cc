#include "load/weights_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "base/checked_math.h"

namespace kvasir::load {
namespace {

constexpr uint64_t kArenaAlignment = 64;

// Tensors of a layer, by the start of their name after "blk.N.", that other families compute with.
constexpr std::string_view kForeignLayerTensors[] = {
    "attn_q_",     "attn_k_",       "attn_kv_",     "attn_sub_norm",    "attn_sinks", "attn_norm_2",
    "attn_norm.b", "attn_out_norm", "attn_gate",    "attn_output_norm", "post_",      "cross_",
    "ffn_norm.b",  "ffn_norm_",     "ffn_sub_norm", "ffn_post_",        "ffn_gate_",  "ffn_up_",
    "ffn_down_",   "ffn_gate.0",    "ffn_up.0",     "ffn_down.0",       "ffn_exp_",   "exp_probs",
    "layer_out",   "ssm_",          "nextn",        "attn_post_norm",   "attn_rel_b"};
constexpr std::string_view kForeignTensors[] = {
    "position_embd.weight",      "token_types.weight",
    "token_embd_norm.weight",    "token_embd_norm.bias",
    "output_norm.bias",          "rope_factors_long.weight",
    "rope_factors_short.weight", "per_layer_token_embd.weight",
    "altup_proj.weight"};

// The layer number and the rest of "blk.N.REST".
struct LayerTensorName {
  uint32_t layer = 0;
  std::string_view rest;
};
std::optional<LayerTensorName> parse_layer_name(std::string_view name) {
  constexpr std::string_view kPrefix = "blk.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  LayerTensorName parsed;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), parsed.layer);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  parsed.rest = name.substr(static_cast<size_t>(end - name.data()) + 1);
  return parsed;
}

bool changes_mathematics(std::string_view name) {
  if (std::ranges::find(kForeignTensors, name) != std::end(kForeignTensors)) return true;
  const auto layer = parse_layer_name(name);
  if (!layer) return false;
  return layer->rest.ends_with(".scale") ||
         std::ranges::any_of(kForeignLayerTensors, [&](std::string_view start) {
           return layer->rest.starts_with(start);
         });
}

std::string shape_text(const std::vector<uint64_t>& shape) {
  std::string text;
  for (const uint64_t size : shape) text += fmt::format("{}{}", text.empty() ? "[" : ", ", size);
  return text + "]";
}

class Planner {
 public:
  Planner(const gguf::GgufFile& file, const model::ModelConfig& config, WeightsMode mode)
      : file_(file), config_(config), mode_(mode) {}

  base::Result<WeightsPlan> plan();

 private:
  // Rows [first, first + count) of a tensor: a fused one holds several matrices.
  struct RowRange {
    uint64_t first = 0;
    uint64_t count = 0;
  };

  base::Status check_names() const;
  base::Result<LayerPlan> plan_layer(uint32_t layer);
  base::Status plan_attention_inputs(const std::string& prefix, LayerPlan& plan);
  base::Result<LinearPlan> plan_linear(const std::string& name, uint64_t rows, uint64_t columns);
  base::Result<LinearPlan> plan_fused(const std::string& name, uint64_t all_rows, RowRange rows);

  base::Result<MatrixPlan> plan_matrix(const std::string& name, uint64_t rows, uint64_t columns);
  base::Result<MatrixPlan> plan_rows(const std::string& name, uint64_t all_rows, uint64_t columns,
                                     RowRange rows);
  base::Result<VectorPlan> plan_vector(const std::string& name, uint64_t all_elements,
                                       RowRange elements);
  base::Result<VectorPlan> plan_vector(const std::string& name, uint64_t elements) {
    return plan_vector(name, elements, {.first = 0, .count = elements});
  }
  base::Result<std::optional<VectorPlan>> plan_bias(const std::string& name, uint64_t all_elements,
                                                    RowRange elements);

  // The tensor, which must exist in this shape and in a type that can be decoded.
  base::Result<const gguf::TensorInfo*> expect_tensor(const std::string& name,
                                                      const std::vector<uint64_t>& shape) const;
  std::unexpected<base::Error> refuse(std::string_view tensor, std::string_view problem) const;
  // Room for `size_bytes` in the arena.
  uint64_t place(uint64_t size_bytes) {
    const uint64_t offset = arena_bytes_;
    arena_bytes_ += base::align_up(size_bytes, kArenaAlignment);
    return offset;
  }

  const gguf::GgufFile& file_;
  const model::ModelConfig& config_;
  const WeightsMode mode_;
  // Neither can overflow: both are bounded by a small multiple of the size of the file.
  uint64_t arena_bytes_ = 0;
  uint64_t parameters_ = 0;
};

std::unexpected<base::Error> Planner::refuse(std::string_view tensor,
                                             std::string_view problem) const {
  return base::bad_input(
      fmt::format("{}: tensor {}: {}", file_.name(), gguf::printable(tensor), problem));
}

base::Status Planner::check_names() const {
  for (const gguf::TensorInfo& tensor : file_.tensors()) {
    if (changes_mathematics(tensor.name)) {
      return refuse(tensor.name,
                    "not part of a llama model this build supports; use another model");
    }
    const auto layer = parse_layer_name(tensor.name);
    if (layer && layer->layer >= config_.layers) {
      return refuse(tensor.name,
                    fmt::format("the model has only {} layers; convert it again", config_.layers));
    }
  }
  return {};
}

base::Result<WeightsPlan> Planner::plan() {
  RETURN_IF_ERROR(check_names());
  const uint64_t vocab = config_.vocab_size;
  const uint64_t embedding = config_.embedding_length;
  WeightsPlan plan;
  ASSIGN_OR_RETURN(plan.token_embedding, plan_matrix("token_embd.weight", vocab, embedding));
  plan.layers.reserve(config_.layers);
  for (uint32_t layer = 0; layer < config_.layers; ++layer) {
    ASSIGN_OR_RETURN(plan.layers.emplace_back(), plan_layer(layer));
  }
  ASSIGN_OR_RETURN(plan.output_norm, plan_vector("output_norm.weight", embedding));
  if (file_.find_tensor("output.weight") != nullptr) {
    ASSIGN_OR_RETURN(plan.output, plan_matrix("output.weight", vocab, embedding));
  }
  ASSIGN_OR_RETURN(plan.output_bias, plan_bias("output.bias", vocab, {.first = 0, .count = vocab}));
  plan.arena_bytes = arena_bytes_;
  plan.parameters = parameters_;
  return plan;
}

base::Result<LayerPlan> Planner::plan_layer(uint32_t layer) {
  const std::string prefix = fmt::format("blk.{}.", layer);
  const uint64_t embedding = config_.embedding_length;
  const uint64_t feed_forward = config_.feed_forward_length;
  LayerPlan plan;
  ASSIGN_OR_RETURN(plan.attention_norm, plan_vector(prefix + "attn_norm.weight", embedding));
  RETURN_IF_ERROR(plan_attention_inputs(prefix, plan));
  ASSIGN_OR_RETURN(plan.attention_output,
                   plan_linear(prefix + "attn_output", embedding, config_.query_width()));
  ASSIGN_OR_RETURN(plan.feed_forward_norm, plan_vector(prefix + "ffn_norm.weight", embedding));
  ASSIGN_OR_RETURN(plan.gate, plan_linear(prefix + "ffn_gate", feed_forward, embedding));
  ASSIGN_OR_RETURN(plan.up, plan_linear(prefix + "ffn_up", feed_forward, embedding));
  ASSIGN_OR_RETURN(plan.down, plan_linear(prefix + "ffn_down", embedding, feed_forward));
  return plan;
}

// Three tensors, or one whose rows are those of query, key and value in this order.
base::Status Planner::plan_attention_inputs(const std::string& prefix, LayerPlan& plan) {
  const uint64_t query_rows = config_.query_width();
  const uint64_t kv_rows = config_.kv_width();
  const std::string fused = prefix + "attn_qkv";
  if (file_.find_tensor(fused + ".weight") == nullptr) {
    const uint64_t columns = config_.embedding_length;
    ASSIGN_OR_RETURN(plan.query, plan_linear(prefix + "attn_q", query_rows, columns));
    ASSIGN_OR_RETURN(plan.key, plan_linear(prefix + "attn_k", kv_rows, columns));
    ASSIGN_OR_RETURN(plan.value, plan_linear(prefix + "attn_v", kv_rows, columns));
    return {};
  }
  const uint64_t all_rows = query_rows + 2 * kv_rows;
  ASSIGN_OR_RETURN(plan.query, plan_fused(fused, all_rows, {.first = 0, .count = query_rows}));
  ASSIGN_OR_RETURN(plan.key, plan_fused(fused, all_rows, {.first = query_rows, .count = kv_rows}));
  ASSIGN_OR_RETURN(plan.value,
                   plan_fused(fused, all_rows, {.first = query_rows + kv_rows, .count = kv_rows}));
  return {};
}

base::Result<LinearPlan> Planner::plan_linear(const std::string& name, uint64_t rows,
                                              uint64_t columns) {
  LinearPlan plan;
  ASSIGN_OR_RETURN(plan.weight, plan_matrix(name + ".weight", rows, columns));
  ASSIGN_OR_RETURN(plan.bias, plan_bias(name + ".bias", rows, {.first = 0, .count = rows}));
  return plan;
}

base::Result<LinearPlan> Planner::plan_fused(const std::string& name, uint64_t all_rows,
                                             RowRange rows) {
  LinearPlan plan;
  ASSIGN_OR_RETURN(plan.weight,
                   plan_rows(name + ".weight", all_rows, config_.embedding_length, rows));
  ASSIGN_OR_RETURN(plan.bias, plan_bias(name + ".bias", all_rows, rows));
  return plan;
}

base::Result<const gguf::TensorInfo*> Planner::expect_tensor(
    const std::string& name, const std::vector<uint64_t>& shape) const {
  const gguf::TensorInfo* tensor = file_.find_tensor(name);
  if (tensor == nullptr) {
    return refuse(name, fmt::format("missing, expected with shape {}; convert the model again",
                                    shape_text(shape)));
  }
  if (tensor->dimensions != shape) {
    return refuse(name, fmt::format("expected shape {}, found {}; convert the model again",
                                    shape_text(shape), shape_text(tensor->dimensions)));
  }
  if (quant::find_tensor_type(tensor->type_id) == nullptr) {
    return refuse(name, fmt::format("type {} can not be decoded by this build; use a Q4_0, Q4_1, "
                                    "Q5_0, Q5_1, Q8_0, F16, BF16 or F32 file",
                                    quant::tensor_type_name(tensor->type_id).value_or("unknown")));
  }
  return tensor;
}

base::Result<MatrixPlan> Planner::plan_matrix(const std::string& name, uint64_t rows,
                                              uint64_t columns) {
  return plan_rows(name, rows, columns, {.first = 0, .count = rows});
}

base::Result<MatrixPlan> Planner::plan_rows(const std::string& name, uint64_t all_rows,
                                            uint64_t columns, RowRange rows) {
  ASSIGN_OR_RETURN(const gguf::TensorInfo* tensor, expect_tensor(name, {columns, all_rows}));
  const auto type = static_cast<quant::TensorType>(tensor->type_id);
  const uint64_t row_bytes = quant::row_size_bytes(type, columns);
  MatrixPlan plan;
  plan.source = {.type = type,
                 .rows = rows.count,
                 .columns = columns,
                 .bytes = tensor->bytes.subspan(rows.first * row_bytes, rows.count * row_bytes)};
  plan.format = mode_ == WeightsMode::kF32 ? quant::PackedFormat::kF32 : quant::native_format(type);
  plan.offset_bytes = place(plan.packed_bytes());
  parameters_ += rows.count * columns;
  return plan;
}

base::Result<VectorPlan> Planner::plan_vector(const std::string& name, uint64_t all_elements,
                                              RowRange elements) {
  ASSIGN_OR_RETURN(const gguf::TensorInfo* tensor, expect_tensor(name, {all_elements}));
  const quant::TensorTypeInfo* info = quant::find_tensor_type(tensor->type_id);
  if (info->block_elements != 1) {
    return refuse(name, fmt::format("expected F32, F16 or BF16, found {}; convert the model again",
                                    info->name));
  }
  VectorPlan plan{.type = info->type,
                  .bytes = tensor->bytes.subspan(elements.first * info->block_bytes,
                                                 elements.count * info->block_bytes),
                  .size = elements.count,
                  .offset_bytes = place(elements.count * sizeof(float))};
  parameters_ += elements.count;
  return plan;
}

base::Result<std::optional<VectorPlan>> Planner::plan_bias(const std::string& name,
                                                           uint64_t all_elements,
                                                           RowRange elements) {
  if (file_.find_tensor(name) == nullptr) return std::nullopt;
  return plan_vector(name, all_elements, elements);
}

}  // namespace

base::Result<WeightsPlan> plan_weights(const gguf::GgufFile& file, const model::ModelConfig& config,
                                       WeightsMode mode) {
  return Planner(file, config, mode).plan();
}

}  // namespace kvasir::load
