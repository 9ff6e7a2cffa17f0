// The one table of what a completion request may ask for: it validates every field of every
// dialect, and the API's description is made from it.
//
// Fields that the table does not know are ignored; null means absent.
//
// Thread: any. Allocates: read_parameters() only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "api/llm.h"
#include "serve/json_input.h"

namespace kvasir::serve {

// Who speaks: OpenAI's chat and its older completions, llama.cpp's server. A set is a sum.
enum class Dialect : uint8_t { kChat = 1, kCompletion = 2, kLlama = 4 };

struct StreamOptions {
  bool given = false;
  bool include_usage = false;
};

// Everything a request can set, validated. The table gives the defaults.
struct Parameters {
  double temperature = 0.0;
  double top_p = 0.0;
  double min_p = 0.0;
  double repetition_penalty = 0.0;
  double presence_penalty = 0.0;
  double frequency_penalty = 0.0;
  int64_t top_k = 0;  // -1 and 0: all tokens
  std::optional<int64_t> seed;
  std::vector<sample::LogitBias> logit_bias;

  int64_t choices = 1;
  std::optional<int64_t> best_of;
  std::optional<int64_t> max_tokens;
  std::optional<int64_t> max_completion_tokens;  // the newer name of max_tokens
  int64_t n_predict = 0;                         // llama.cpp's; -1: as many as fit
  int64_t min_tokens = 0;
  std::vector<std::string> stop;
  std::vector<TokenId> stop_tokens;
  bool keeps_stop = false;
  bool ignore_eos = false;

  bool logprobs = false;                  // chat
  int64_t top_logprobs = 0;               // chat
  std::optional<int64_t> logprobs_count;  // completions: nullopt: none wanted
  int64_t n_probs = 0;                    // llama.cpp; 0: none wanted
  bool echo = false;
  bool return_tokens = false;     // llama.cpp
  bool return_token_ids = false;  // vLLM's, of the prompt, too
  std::vector<std::string> response_fields;

  bool stream = false;
  StreamOptions stream_options;
  bool add_generation_prompt = false;
  bool cache_prompt = false;
  int64_t priority = 0;  // vLLM's order: lower goes first
  std::string cache_salt;
};

enum class ParameterType : uint8_t {
  kNumber,
  kInteger,
  kBoolean,
  kString,
  kStringOrStrings,
  kTokens,
  kTokenBiases,    // {"id": bias}
  kStreamOptions,  // {"include_usage": bool}
};

// One row of the table. `min` and `max` bound a number's value, a string's characters, a list's
// entries.
struct ParameterSpec {
  using Target =
      std::variant<double Parameters::*, int64_t Parameters::*,
                   std::optional<int64_t> Parameters::*, bool Parameters::*,
                   std::string Parameters::*, std::vector<std::string> Parameters::*,
                   std::vector<TokenId> Parameters::*, std::vector<sample::LogitBias> Parameters::*,
                   StreamOptions Parameters::*>;

  std::string_view name;
  uint8_t dialects = 0;  // the set that has it under this name, with these bounds
  Target target;         // where its value goes; decides its type
  double min = 0.0;
  double max = 0.0;
  std::optional<double> initial;  // what it is when absent; booleans: 0 or 1
  std::string_view meaning;       // for people

  bool is_in(Dialect dialect) const { return (dialects & static_cast<uint8_t>(dialect)) != 0; }
  ParameterType type() const;
  // Characters of each text in a list. llama.cpp's clients ask for the field "" to get none.
  size_t listed_string_min() const { return name == "response_fields" ? 0 : 1; }
};

// Ordered for reading. A name occurs once per dialect.
std::span<const ParameterSpec> parameters();

// Error: 400 that names the first field with a wrong value, or that contradicts another.
ApiResult<Parameters> read_parameters(const boost::json::object& body, Dialect dialect,
                                      size_t vocab_size);

}  // namespace kvasir::serve
