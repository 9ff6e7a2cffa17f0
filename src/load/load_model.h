// A GGUF file to a model that can run: configuration, packed weights, vocabulary, chat template.
//
// Thread: one caller; packing uses the pool. Allocates: yes, the weights in one arena.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/digest.h"
#include "base/result.h"
#include "base/thread_pool.h"
#include "gguf/gguf_file.h"
#include "load/weights_plan.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/vocab.h"

namespace kvasir::load {

struct LoadedModel {
  model::ModelConfig config;
  model::ModelWeights weights;
  base::Sha256Bytes fingerprint{};  // of weights and configuration: see fingerprint.h
  uint64_t parameters = 0;          // elements of all weights; a tied output counts once
};

struct LoadedText {
  text::Vocab vocab;
  std::optional<std::string> chat_template;  // Jinja source
};

struct LoadOptions {
  WeightsMode weights = WeightsMode::kNative;
  base::ThreadPool* pool = nullptr;               // nullptr: the calling thread alone
  std::function<void(double fraction)> progress;  // may be empty; called on the calling thread
};

// The result does not refer to `file`. Error: see read_vocab; a vocabulary of another size than the
// token embedding.
base::Result<LoadedText> load_text(const gguf::GgufFile& file, const model::ModelConfig& config);

// The result does not refer to `file`. Error: see read_config and plan_weights; no memory.
base::Result<LoadedModel> load_model(const gguf::GgufFile& file, const LoadOptions& options);

// The size of the arena that load_model will take. Error: as plan_weights.
base::Result<uint64_t> weights_size_bytes(const gguf::GgufFile& file,
                                          const model::ModelConfig& config, WeightsMode mode);

}  // namespace kvasir::load
