// Every knob of the engine, as people write it, checked once into typed values.
//
// Thread: value types.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "engine/engine.h"
#include "load/load_model.h"

namespace kvasir::api {

inline constexpr const char* kDefaultModelPath = "models/smollm2-135m-instruct-q4_1.gguf";

// As written on a command line. An empty string means the default.
struct EngineFlags {
  std::string model = kDefaultModelPath;
  std::string kv = "paged";              // none, contiguous, paged
  std::string kv_dtype = "bf16";         // bf16, f32, int8
  std::string kv_memory;                 // bytes, or with a suffix: 256MiB, 2GB
  uint32_t block_tokens = 32;            // 16, 32
  std::string prefill_chunk = "128";     // tokens of a step, or "all"
  std::string weights = "native";        // native, f32
  int threads = 0;                       // 0: all processors this process may use
  bool pin_threads = false;              // base::Placement::kOneProcessorEach
  std::string isa = "auto";              // auto, or one of kernels::isa_name()
  std::string attention_order = "auto";  // auto, pairs, tiles: see kernels::AttentionOrder
  uint32_t max_sequences = 16;           // that run at once
  uint32_t context = 0;                  // longest sequence; 0: what the model was trained for
};

struct EngineOptions {
  std::string model_path;
  kv::CacheMode kv_mode = kv::CacheMode::kPaged;
  quant::KvDtype kv_dtype = quant::KvDtype::kBF16;
  std::optional<uint64_t> kv_memory_bytes;
  uint32_t block_tokens = 32;
  std::optional<uint32_t> prefill_chunk;  // nullopt: a whole prompt at once
  load::WeightsMode weights = load::WeightsMode::kNative;
  uint32_t threads = 1;
  base::Placement placement = base::Placement::kAnywhere;
  const kernels::KernelTable* kernels = nullptr;
  kernels::AttentionOrder attention_order = kernels::AttentionOrder::kPairs;
  uint32_t sequences_max = 16;
  std::optional<uint32_t> context;

  // What a command needs beyond the flags.
  bool kv_verify = false;             // tests: see kv::CacheOptions::verify
  uint32_t requests_max = 0;          // queue length; 0: as many as sequences_max
  uint32_t logit_rows_max = 0;        // 0: as many as sequences_max
  std::optional<uint64_t> kv_tokens;  // default size of the cache; nullopt: one full context,
                                      // at most 1 GiB
  // A server's: without kv_memory_bytes, this part of the memory that weights and activations
  // leave.
  std::optional<double> kv_share_of_free;
  std::vector<double> tenant_weights;  // see sched::SchedulerLimits
  uint64_t step_target_us = 0;
  // What benchmarks compare with; nullopt: as kv::CacheOptions has it.
  std::optional<kv::Publish> kv_publish;
  std::optional<kv::ContiguousRun> kv_contiguous_run;
};

// Error: the first flag that can not be used, by name, with what is allowed.
base::Result<EngineOptions> parse_options(const EngineFlags& flags);

// "4096", "64KiB", "256MB", "2g" -> bytes. Error: anything else, zero, or more than 2^63.
base::Result<uint64_t> parse_bytes(std::string_view text);

// Sizes that follow from the options and the model: what is allocated, to the byte.
struct EnginePlan {
  kv::CacheOptions cache;
  sched::SchedulerLimits limits;
};
// Error: the context asked for is longer than the model's.
base::Result<EnginePlan> plan_engine(const EngineOptions& options,
                                     const model::ModelConfig& config);

}  // namespace kvasir::api
