#include "load/read_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/math.h"
#include "load/keys.h"
#include "quant/decode.h"

namespace kvasir::load {
namespace {

constexpr std::string_view kArchitecture = "llama";
constexpr uint64_t kMaxLayers = 1024;
constexpr uint64_t kMaxHeads = 4096;
constexpr uint64_t kMinHeadDim = 16;
constexpr uint64_t kMaxHeadDim = 256;
constexpr uint64_t kHeadDimStep = 16;
constexpr uint64_t kMaxWidth = uint64_t{1} << 20;
constexpr uint64_t kMaxContextLength = uint64_t{1} << 24;
constexpr uint64_t kMaxVocabSize = uint64_t{1} << 20;

// Keys that change the mathematics of some family, and the value that changes nothing.
struct NeutralNumber {
  std::string_view key;
  double neutral;
};
constexpr NeutralNumber kNeutralNumbers[] = {
    {"logit_scale", 1.0},
    {"residual_scale", 1.0},
    {"embedding_scale", 1.0},
    {"attn_logit_softcapping", 0.0},
    {"final_logit_softcapping", 0.0},
    {"attention.clamp_kqv", 0.0},
    {"attention.max_alibi_bias", 0.0},
    {"attention.temperature_scale", 0.0},
    {"rope.scaling.attn_factor", 1.0},
    {"rope.scaling.yarn_ext_factor", 0.0},
    {"rope.scaling.yarn_attn_factor", 1.0},
    {"rope.scaling.yarn_log_multiplier", 0.0},
};
struct NeutralFlag {
  std::string_view key;
  bool neutral;
};
constexpr NeutralFlag kNeutralFlags[] = {
    {"attention.causal", true}, {"use_parallel_residual", false}, {"swin_norm", false}};
// Integers that ask for parts this family does not have, unless they are 0.
constexpr std::string_view kZeroIntegers[] = {"expert_count", "expert_shared_count",
                                              "nextn_predict_layers", "pooling_type"};

class ConfigReader {
 public:
  explicit ConfigReader(const gguf::GgufFile& file)
      : file_(file), general_(file, ""), keys_(file, std::string(kArchitecture) + ".") {}

  base::Result<model::ModelConfig> read();

 private:
  base::Status check_kind();
  base::Status check_neutral_keys() const;
  base::Status read_widths();
  base::Status read_head_dim();
  base::Status read_vocab_size();
  base::Status read_attention();
  base::Status read_rope();
  base::Status read_rope_scaling();
  base::Status read_frequency_factors();
  base::Status check_angles();

  // A value that the range keeps inside 32 bits.
  base::Result<uint32_t> required(std::string_view key, uint64_t max) const {
    ASSIGN_OR_RETURN(const uint64_t value, keys_.required_unsigned(key, {.min = 1, .max = max}));
    return static_cast<uint32_t>(value);
  }

  const gguf::GgufFile& file_;
  const Keys general_;
  const Keys keys_;
  model::ModelConfig config_;
};

base::Result<model::ModelConfig> ConfigReader::read() {
  RETURN_IF_ERROR(check_kind());
  RETURN_IF_ERROR(check_neutral_keys());
  RETURN_IF_ERROR(read_widths());
  RETURN_IF_ERROR(read_head_dim());
  RETURN_IF_ERROR(read_vocab_size());
  RETURN_IF_ERROR(read_attention());
  RETURN_IF_ERROR(read_rope());
  return std::move(config_);
}

base::Status ConfigReader::check_kind() {
  ASSIGN_OR_RETURN(const auto kind, file_.get_string("general.type"));
  if (kind && *kind != "model") {
    return general_.refuse("general.type", fmt::format("{} is not a model; give the model's file",
                                                       gguf::printable(*kind)));
  }
  ASSIGN_OR_RETURN(const auto parts,
                   general_.optional_unsigned("split.count", {.min = 0, .max = 65535}));
  if (parts && *parts > 1) {
    return general_.refuse("split.count",
                           fmt::format("the model is split in {} files; join them first", *parts));
  }
  ASSIGN_OR_RETURN(const auto architecture, file_.get_string("general.architecture"));
  if (!architecture) return general_.refuse("general.architecture", "missing; convert it again");
  if (*architecture != kArchitecture) {
    return general_.refuse("general.architecture",
                           fmt::format("{} is not supported; supported: {}",
                                       gguf::printable(*architecture), kArchitecture));
  }
  config_.architecture = *architecture;
  ASSIGN_OR_RETURN(const auto name, file_.get_string("general.name"));
  config_.name = name.value_or("");
  return {};
}

base::Status ConfigReader::check_neutral_keys() const {
  for (const std::string_view key : kZeroIntegers) {
    ASSIGN_OR_RETURN(const auto count, keys_.optional_unsigned(key, {.min = 0, .max = 0xffffffff}));
    if (count.value_or(0) != 0) {
      return keys_.refuse(key, fmt::format("{} is not supported; use another model", *count));
    }
  }
  for (const auto& [key, neutral] : kNeutralNumbers) {
    RETURN_IF_ERROR(keys_.expect_neutral(key, neutral));
  }
  for (const auto& [key, neutral] : kNeutralFlags) {
    RETURN_IF_ERROR(keys_.expect_neutral(key, neutral));
  }
  return {};
}

base::Status ConfigReader::read_widths() {
  ASSIGN_OR_RETURN(config_.layers, required("block_count", kMaxLayers));
  ASSIGN_OR_RETURN(config_.context_length, required("context_length", kMaxContextLength));
  ASSIGN_OR_RETURN(config_.embedding_length, required("embedding_length", kMaxWidth));
  ASSIGN_OR_RETURN(config_.feed_forward_length, required("feed_forward_length", kMaxWidth));
  ASSIGN_OR_RETURN(config_.heads, required("attention.head_count", kMaxHeads));
  ASSIGN_OR_RETURN(const auto kv_heads, keys_.optional_unsigned("attention.head_count_kv",
                                                                {.min = 1, .max = kMaxHeads}));
  config_.kv_heads = static_cast<uint32_t>(kv_heads.value_or(config_.heads));
  if (config_.heads % config_.kv_heads != 0) {
    return keys_.refuse("attention.head_count_kv",
                        fmt::format("{} does not divide {} heads; convert the model again",
                                    config_.kv_heads, config_.heads));
  }
  return {};
}

base::Status ConfigReader::read_head_dim() {
  constexpr UnsignedRange kRange = {.min = kMinHeadDim, .max = kMaxHeadDim};
  ASSIGN_OR_RETURN(const auto key_length, keys_.optional_unsigned("attention.key_length", kRange));
  if (!key_length && config_.embedding_length % config_.heads != 0) {
    return keys_.refuse("attention.head_count",
                        fmt::format("{} does not divide the embedding length {}; convert the model "
                                    "again",
                                    config_.heads, config_.embedding_length));
  }
  const uint64_t head_dim = key_length.value_or(config_.embedding_length / config_.heads);
  if (head_dim < kMinHeadDim || head_dim > kMaxHeadDim || head_dim % kHeadDimStep != 0) {
    return keys_.refuse("attention.key_length",
                        fmt::format("head dimension {} is not a multiple of {} from {} to {}; use "
                                    "another model",
                                    head_dim, kHeadDimStep, kMinHeadDim, kMaxHeadDim));
  }
  ASSIGN_OR_RETURN(const auto value_length,
                   keys_.optional_unsigned("attention.value_length", kRange));
  if (value_length.value_or(head_dim) != head_dim) {
    return keys_.refuse("attention.value_length",
                        fmt::format("{} differs from the key length {}; use another model",
                                    *value_length, head_dim));
  }
  config_.head_dim = static_cast<uint32_t>(head_dim);
  return {};
}

base::Status ConfigReader::read_vocab_size() {
  constexpr std::string_view kTensor = "token_embd.weight";
  const gguf::TensorInfo* tensor = file_.find_tensor(kTensor);
  if (tensor == nullptr || tensor->dimensions.size() != 2) {
    return base::bad_input(
        fmt::format("{}: tensor '{}' is missing or not a matrix; convert the "
                    "model again",
                    file_.name(), kTensor));
  }
  if (tensor->dimensions[1] > kMaxVocabSize) {
    return base::bad_input(
        fmt::format("{}: tensor '{}' has {} rows, more than {}; use another "
                    "model",
                    file_.name(), kTensor, tensor->dimensions[1], kMaxVocabSize));
  }
  config_.vocab_size = static_cast<uint32_t>(tensor->dimensions[1]);
  return {};
}

base::Status ConfigReader::read_attention() {
  constexpr std::string_view kEpsilon = "attention.layer_norm_rms_epsilon";
  ASSIGN_OR_RETURN(const auto epsilon, keys_.optional_positive(kEpsilon));
  if (!epsilon) return keys_.refuse(kEpsilon, "missing; convert the model again");
  config_.rms_epsilon = *epsilon;
  ASSIGN_OR_RETURN(const auto scale, keys_.optional_positive("attention.scale"));
  config_.attention_scale = scale.value_or(1.0F / std::sqrt(static_cast<float>(config_.head_dim)));
  return {};
}

base::Status ConfigReader::read_rope() {
  ASSIGN_OR_RETURN(const auto rotated,
                   keys_.optional_unsigned("rope.dimension_count", {.min = 1, .max = kMaxHeadDim}));
  config_.rope.rotated_dims = static_cast<uint32_t>(rotated.value_or(config_.head_dim));
  if (config_.rope.rotated_dims != config_.head_dim) {
    return keys_.refuse("rope.dimension_count",
                        fmt::format("{} differs from the head dimension {}; use another model",
                                    config_.rope.rotated_dims, config_.head_dim));
  }
  ASSIGN_OR_RETURN(const auto base, keys_.optional_positive("rope.freq_base"));
  config_.rope.base = base.value_or(config_.rope.base);
  RETURN_IF_ERROR(read_rope_scaling());
  RETURN_IF_ERROR(read_frequency_factors());
  return check_angles();
}

// The largest angle is that of the fastest pair at the last position; beyond the bound its sine
// would have no correct digit left.
base::Status ConfigReader::check_angles() {
  if (config_.rope.base < 1.0F) {
    return keys_.refuse("rope.freq_base",
                        fmt::format("{} is below 1; convert the model again", config_.rope.base));
  }
  double slowest_factor = 1.0;
  for (const float factor : config_.rope.frequency_factors) {
    slowest_factor = std::min(slowest_factor, double{factor});
  }
  const double angle_max =
      config_.context_length / (slowest_factor * double{config_.rope.linear_factor});
  if (angle_max <= base::kSinCosMax) return {};
  return keys_.refuse("context_length",
                      fmt::format("rotary angles up to {} exceed {}; convert the model again",
                                  angle_max, base::kSinCosMax));
}

base::Status ConfigReader::read_rope_scaling() {
  constexpr std::string_view kType = "rope.scaling.type";
  ASSIGN_OR_RETURN(const auto type, file_.get_string(keys_.full(kType)));
  if (type && *type != "none" && *type != "linear") {
    return keys_.refuse(
        kType, fmt::format("{} is not supported; supported: none, linear", gguf::printable(*type)));
  }
  ASSIGN_OR_RETURN(const auto factor, keys_.optional_positive("rope.scaling.factor"));
  ASSIGN_OR_RETURN(const auto old_factor, keys_.optional_positive("rope.scale_linear"));
  if (type == "none") return {};  // then the factor is ignored
  config_.rope.linear_factor = factor.value_or(old_factor.value_or(1.0F));
  return {};
}

base::Status ConfigReader::read_frequency_factors() {
  constexpr std::string_view kTensor = "rope_freqs.weight";
  const gguf::TensorInfo* tensor = file_.find_tensor(kTensor);
  if (tensor == nullptr) return {};
  const auto refuse = [&](const std::string& problem) {
    return base::bad_input(fmt::format("{}: tensor '{}': {}; convert the model again", file_.name(),
                                       kTensor, problem));
  };
  const uint32_t pairs = config_.rope.rotated_dims / 2;
  if (tensor->dimensions != std::vector<uint64_t>{pairs}) {
    return refuse(fmt::format("its shape is not [{}]", pairs));
  }
  const quant::TensorTypeInfo* info = quant::find_tensor_type(tensor->type_id);
  if (info == nullptr || info->block_elements != 1) return refuse("it is not F32, F16 or BF16");
  config_.rope.frequency_factors.resize(pairs);
  quant::decode_row(info->type, tensor->bytes, config_.rope.frequency_factors);
  for (const float factor : config_.rope.frequency_factors) {
    if (!std::isfinite(factor) || factor <= 0.0F) {
      return refuse(fmt::format("{} is not finite and positive", factor));
    }
  }
  return {};
}

}  // namespace

base::Result<model::ModelConfig> read_config(const gguf::GgufFile& file) {
  return ConfigReader(file).read();
}

}  // namespace kvasir::load
