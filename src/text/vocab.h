// A vocabulary as plain tables, already validated (load/ reads it from a GGUF file).
// Thread: immutable after construction.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/ids.h"

namespace kvasir::text {

enum class VocabModel : uint8_t { kBpe, kSpm };  // tokenizer.ggml.model "gpt2", "llama"

// Values are those of the file format.
enum class TokenType : uint8_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

// Tokens that mark the parts of a prompt whose middle is to be filled in (Bavarian et al.,
// arXiv:2207.14255).
struct FillTokens {
  std::optional<TokenId> prefix;
  std::optional<TokenId> suffix;
  std::optional<TokenId> middle;
  std::optional<TokenId> repository;  // begins several files
  std::optional<TokenId> file;        // begins one of them
};

struct Vocab {
  VocabModel model = VocabModel::kBpe;
  std::string pre_tokenizer;        // kBpe: "smollm", "llama-bpe", "qwen2", "gpt-2", ...
  std::vector<std::string> tokens;  // kBpe: in the GPT-2 byte alphabet; kSpm: U+2581 for space
  std::vector<float> scores;        // kSpm: one per token; kBpe: empty
  std::vector<TokenType> types;     // one per token
  std::vector<std::string> merges;  // kBpe: "A B", by rank

  std::optional<TokenId> bos;
  std::optional<TokenId> eos;
  std::optional<TokenId> unknown;
  bool add_bos = false;
  bool add_eos = false;
  bool add_space_prefix = false;           // kSpm
  std::vector<TokenId> end_of_generation;  // ids that end an answer, ascending
  FillTokens fill;
};

}  // namespace kvasir::text
