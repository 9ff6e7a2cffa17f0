#include "load/load_model.h"

#include <fmt/format.h>

#include <utility>

#include "base/check.h"
#include "base/fp_env.h"
#include "load/fingerprint.h"
#include "load/read_config.h"
#include "load/read_vocab.h"
#include "quant/decode.h"

namespace kvasir::load {
namespace {

class Packer {
 public:
  Packer(const gguf::GgufFile& file, const base::AlignedBuffer& arena, const LoadOptions& options)
      : file_(file), arena_(arena), options_(options) {}

  quant::PackedMatrix pack(const MatrixPlan& plan) {
    const auto destination = arena_.as<std::byte>(plan.offset_bytes, plan.packed_bytes());
    quant::PackedMatrix matrix{.format = plan.format,
                               .rows = plan.source.rows,
                               .columns = plan.source.columns,
                               .data = destination.data()};
    const auto pack_range = [&](size_t, base::Range panels) {
      quant::pack_panels(plan.source, plan.format, panels.begin, panels.end, destination);
    };
    if (options_.pool != nullptr) {
      options_.pool->for_ranges(matrix.panels(), pack_range);
    } else {
      pack_range(0, {.begin = 0, .end = matrix.panels()});
    }
    file_.forget(plan.source.bytes);
    report(plan.offset_bytes + plan.packed_bytes());
    return matrix;
  }

  std::span<const float> decode(const VectorPlan& plan) {
    const auto destination = arena_.as<float>(plan.offset_bytes, plan.size);
    quant::decode_row(plan.type, plan.bytes, destination);
    return destination;
  }

  model::Linear pack(const LinearPlan& plan) {
    return {.weight = pack(plan.weight), .bias = decode_optional(plan.bias)};
  }

  std::span<const float> decode_optional(const std::optional<VectorPlan>& plan) {
    if (!plan) return {};
    return decode(*plan);
  }

  model::LayerWeights pack(const LayerPlan& plan) {
    return {.attention_norm = decode(plan.attention_norm),
            .query = pack(plan.query),
            .key = pack(plan.key),
            .value = pack(plan.value),
            .attention_output = pack(plan.attention_output),
            .feed_forward_norm = decode(plan.feed_forward_norm),
            .gate = pack(plan.gate),
            .up = pack(plan.up),
            .down = pack(plan.down)};
  }

 private:
  // The plan places in the order of packing, so the end of the last matrix measures progress.
  void report(uint64_t packed_bytes) const {
    if (!options_.progress) return;
    options_.progress(static_cast<double>(packed_bytes) / static_cast<double>(arena_.size_bytes()));
  }

  const gguf::GgufFile& file_;
  const base::AlignedBuffer& arena_;
  const LoadOptions& options_;
};

base::Result<model::ModelWeights> pack_weights(const gguf::GgufFile& file, const WeightsPlan& plan,
                                               const LoadOptions& options) {
  model::ModelWeights weights;
  ASSIGN_OR_RETURN(weights.arena, base::AlignedBuffer::create(plan.arena_bytes));
  const base::ScopedFpEnv fp_env;
  Packer packer(file, weights.arena, options);
  weights.token_embedding = packer.pack(plan.token_embedding);
  weights.layers.reserve(plan.layers.size());
  for (const LayerPlan& layer : plan.layers) weights.layers.push_back(packer.pack(layer));
  weights.output_norm = packer.decode(plan.output_norm);
  weights.output.weight = plan.output ? packer.pack(*plan.output) : weights.token_embedding;
  weights.output.bias = packer.decode_optional(plan.output_bias);
  if (options.progress) options.progress(1.0);
  return weights;
}

base::Status check_vocab_size(const gguf::GgufFile& file, const model::ModelConfig& config,
                              const text::Vocab& vocab) {
  if (vocab.tokens.size() == config.vocab_size) return {};
  return base::bad_input(fmt::format(
      "{}: key 'tokenizer.ggml.tokens' has {} tokens, but tensor 'token_embd.weight' {} rows; "
      "convert the model again",
      file.name(), vocab.tokens.size(), config.vocab_size));
}

}  // namespace

base::Result<LoadedText> load_text(const gguf::GgufFile& file, const model::ModelConfig& config) {
  LoadedText loaded;
  ASSIGN_OR_RETURN(loaded.vocab, read_vocab(file));
  RETURN_IF_ERROR(check_vocab_size(file, config, loaded.vocab));
  ASSIGN_OR_RETURN(loaded.chat_template, file.get_string("tokenizer.chat_template"));
  return loaded;
}

base::Result<LoadedModel> load_model(const gguf::GgufFile& file, const LoadOptions& options) {
  LoadedModel loaded;
  ASSIGN_OR_RETURN(loaded.config, read_config(file));
  ASSIGN_OR_RETURN(const WeightsPlan plan, plan_weights(file, loaded.config, options.weights));
  ASSIGN_OR_RETURN(loaded.weights, pack_weights(file, plan, options));
  CHECK(loaded.weights.arena.size_bytes() == plan.arena_bytes);
  loaded.parameters = plan.parameters;
  loaded.fingerprint = fingerprint_of(
      loaded.config, {loaded.weights.arena.data(), loaded.weights.arena.size_bytes()},
      options.pool);
  return loaded;
}

base::Result<uint64_t> weights_size_bytes(const gguf::GgufFile& file,
                                          const model::ModelConfig& config, WeightsMode mode) {
  ASSIGN_OR_RETURN(const WeightsPlan plan, plan_weights(file, config, mode));
  return plan.arena_bytes;
}

}  // namespace kvasir::load
