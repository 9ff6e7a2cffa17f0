// What a model and its KV cache take, before any of it is taken: for a GGUF file exactly what the
// engine will allocate, for well-known models and bare shapes the textbook's figures.
//
// Thread: any. Allocates: small vectors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/options.h"
#include "base/result.h"

namespace kvasir::api {

// Element types that can be reckoned with; only some of them can be run with (quant::KvDtype).
enum class CalcDtype : uint8_t { kF32, kF16, kBF16, kInt8, kFp8 };

inline constexpr CalcDtype kCalcDtypes[] = {CalcDtype::kF32, CalcDtype::kF16, CalcDtype::kBF16,
                                            CalcDtype::kInt8, CalcDtype::kFp8};
std::optional<CalcDtype> parse_calc_dtype(std::string_view name);
std::string_view calc_dtype_name(CalcDtype dtype);
uint32_t element_bytes(CalcDtype dtype);

// What decides about the keys and values; all at least 1.
struct KvDemand {
  uint64_t layers = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
  CalcDtype dtype = CalcDtype::kF16;
  uint64_t tokens = 0;  // of each sequence
  uint64_t sequences = 1;
  uint32_t block_tokens = 32;
};

struct KvBytes {
  // Payload and scales. Keys and values take half each.
  uint64_t per_token_layer = 0;
  uint64_t per_token = 0;
  uint64_t payload = 0;  // 2 x layers x KV heads x head dimension x element x tokens x sequences
  uint64_t scales = 0;   // int8: one f32 per token, layer, KV head, for each of K and V
  uint64_t padding = 0;  // unused slots of each sequence's last block, and alignment
  uint64_t total = 0;    // the sum: whole blocks, as the pool hands them out
};

// Error: more bytes than 64 bits can count.
base::Result<KvBytes> plan_kv(const KvDemand& demand);

// A published model. `config` has every dimension that sizes depend on.
struct Preset {
  std::string name;
  model::ModelConfig config;
  bool tied_output = false;  // the output matrix is the token embedding
};

std::vector<Preset> presets();
std::optional<Preset> find_preset(std::string_view name);
// Elements of all weights of a llama with these dimensions.
uint64_t parameter_count(const Preset& preset);

struct KvShape {
  uint64_t layers = 0;
  uint64_t kv_heads = 0;
  uint64_t head_dim = 0;
};

// What is asked. Exactly one of model_path, preset and shape is given.
struct CalcRequest {
  std::optional<std::string> model_path;
  std::optional<std::string> preset;
  std::optional<KvShape> shape;

  std::optional<CalcDtype> dtype;  // of the cache; default: bf16 for a file, f16 otherwise
  std::optional<uint64_t> tokens;  // default: the model's context; 4096 for a shape
  uint64_t sequences = 1;
  // Sequences the engine is made for, of a file; default: that of `kvasir run`, or `sequences`
  // where they are more.
  std::optional<uint32_t> sequences_max;
  uint32_t block_tokens = 32;
  // Prompt tokens computed in one step; 0: all of them. Default: that of `kvasir run` for a file,
  // all otherwise, as the textbooks do.
  std::optional<uint32_t> prefill_chunk;
  load::WeightsMode weights = load::WeightsMode::kNative;  // of a file
  CalcDtype weights_dtype = CalcDtype::kF16;               // of a preset
};

struct ActivationTerm {
  std::string name;
  uint64_t size_bytes = 0;
};

struct CalcReport {
  std::string name;  // of the preset or file; "" for a shape
  KvDemand demand;
  KvBytes kv;
  // Only known where the whole model is.
  std::optional<uint64_t> parameters;
  std::optional<uint64_t> weights_bytes;
  std::optional<uint64_t> activations_bytes;
  std::vector<ActivationTerm> activation_terms;
  std::optional<uint64_t> total_bytes;
};

// For a file and a dtype the engine has, `kvasir run --context TOKENS` takes the same number of
// weight, KV and activation bytes, as long as one full context fits its default --kv-memory.
// Error: a value out of range, an unknown preset, an unreadable file.
base::Result<CalcReport> calculate(const CalcRequest& request);

}  // namespace kvasir::api
