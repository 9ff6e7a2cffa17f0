// What is in a GGUF file, for people: also in files that this build can not run.
// Thread: any. Allocates: yes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "load/read_config.h"

namespace kvasir::api {

struct TensorSummary {
  std::string name;
  std::string type;                    // "Q4_1"
  std::vector<uint64_t> shape;         // the first dimension is the contiguous one
  std::optional<uint64_t> size_bytes;  // nullopt: a type this build does not know the size of
};

struct TokenizerSummary {
  std::string model;  // as the file names it: "gpt2", "llama"
  std::string pre_tokenizer;
  uint64_t tokens = 0;
  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::vector<TokenId> end_of_generation;
  bool chat_template = false;
};

struct FileSummary {
  std::string architecture;
  std::string name;
  uint64_t parameters = 0;  // elements of all tensors
  std::vector<TensorSummary> tensors;
  // nullopt: not a model this build can run, or not a vocabulary it knows; then `problem` says why.
  std::optional<model::ModelConfig> config;
  std::optional<TokenizerSummary> tokenizer;
  std::string problem;
};

// Error: not a readable GGUF file.
base::Result<FileSummary> inspect(const std::string& path);

}  // namespace kvasir::api
