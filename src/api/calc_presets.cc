// The tables behind calc: published models and element types.
#include "api/calc.h"

namespace kvasir::api {
namespace {

struct DtypeInfo {
  std::string_view name;
  uint32_t bytes;
};

constexpr DtypeInfo dtype_info(CalcDtype dtype) {
  switch (dtype) {
    case CalcDtype::kF32:
      return {"f32", 4};
    case CalcDtype::kF16:
      return {"f16", 2};
    case CalcDtype::kBF16:
      return {"bf16", 2};
    case CalcDtype::kInt8:
      return {"int8", 1};
    case CalcDtype::kFp8:
      return {"fp8", 1};
  }
  return {"", 0};
}

// The dimensions as the papers list them.
struct Published {
  const char* name;
  uint32_t layers;
  uint32_t embedding;
  uint32_t feed_forward;
  uint32_t heads;
  uint32_t kv_heads;
  uint32_t vocab;
  uint32_t context;
  bool tied_output;
};

constexpr Published kPublished[] = {
    // name           layers  embed  feed-f. heads kv   vocab  context tied
    {"llama-7b", 32, 4096, 11008, 32, 32, 32000, 2048, false},
    {"llama-13b", 40, 5120, 13824, 40, 40, 32000, 2048, false},
    {"llama-2-70b", 80, 8192, 28672, 64, 8, 32000, 4096, false},
    {"llama-3-8b", 32, 4096, 14336, 32, 8, 128256, 8192, false},
    {"llama-3.1-70b", 80, 8192, 28672, 64, 8, 128256, 131072, false},
    {"mistral-7b", 32, 4096, 14336, 32, 8, 32000, 32768, false},
    {"tinyllama-1.1b", 22, 2048, 5632, 32, 4, 32000, 2048, false},
    {"smollm2-135m", 30, 576, 1536, 9, 3, 49152, 8192, true},
};

Preset preset_of(const Published& published) {
  const uint32_t head_dim = published.embedding / published.heads;
  return {.name = published.name,
          .config = {.architecture = "llama",
                     .name = published.name,
                     .vocab_size = published.vocab,
                     .context_length = published.context,
                     .layers = published.layers,
                     .embedding_length = published.embedding,
                     .feed_forward_length = published.feed_forward,
                     .heads = published.heads,
                     .kv_heads = published.kv_heads,
                     .head_dim = head_dim,
                     .rope = {.rotated_dims = head_dim}},
          .tied_output = published.tied_output};
}

}  // namespace

std::optional<CalcDtype> parse_calc_dtype(std::string_view name) {
  for (const CalcDtype dtype : kCalcDtypes) {
    if (dtype_info(dtype).name == name) return dtype;
  }
  return std::nullopt;
}

std::string_view calc_dtype_name(CalcDtype dtype) {
  return dtype_info(dtype).name;
}

uint32_t element_bytes(CalcDtype dtype) {
  return dtype_info(dtype).bytes;
}

std::vector<Preset> presets() {
  std::vector<Preset> presets;
  for (const Published& published : kPublished) presets.push_back(preset_of(published));
  return presets;
}

std::optional<Preset> find_preset(std::string_view name) {
  for (const Published& published : kPublished) {
    if (published.name == name) return preset_of(published);
  }
  return std::nullopt;
}

uint64_t parameter_count(const Preset& preset) {
  const model::ModelConfig& c = preset.config;
  const uint64_t embedding = c.embedding_length;
  const uint64_t attention = 2 * embedding * (uint64_t{c.query_width()} + c.kv_width());
  const uint64_t feed_forward = 3 * embedding * c.feed_forward_length;
  const uint64_t norms = 2 * embedding;
  const uint64_t vocab_matrices = preset.tied_output ? 1 : 2;
  return vocab_matrices * c.vocab_size * embedding + c.layers * (attention + feed_forward + norms) +
         embedding;
}

}  // namespace kvasir::api
