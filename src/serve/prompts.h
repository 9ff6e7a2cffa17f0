// Prompts that are no conversations: texts and token ids as they stand, and gaps to be filled in.
// Thread: any. Allocates: every call.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "serve/model_info.h"

namespace kvasir::serve {

struct Prompt {
  std::vector<TokenId> tokens;
  std::string text;  // as given; of token ids: what they stand for
};

// "prompt": a string, a list of token ids, or a list of either. Text follows BOS where the model
// asks for it. Error: 400 that names the entry.
ApiResult<std::vector<Prompt>> read_prompts(const ModelInfo& model,
                                            const boost::json::object& body);

ApiResult<std::vector<TokenId>> encode_text(const ModelInfo& model, std::string_view text,
                                            std::string_view param);

struct ExtraFile {
  std::string name;
  std::string text;
};

// A gap between two texts.
struct Gap {
  std::vector<ExtraFile> files;  // further context
  std::string prefix;
  std::string suffix;
  std::string begun;  // what the answer begins with
  // The fields they come from, for errors.
  std::string_view prefix_param = "input_prefix";
  std::string_view suffix_param = "input_suffix";
};

// "input_prefix", "input_suffix", "input_extra", "prompt" of llama.cpp's /infill.
ApiResult<Gap> read_gap(const boost::json::object& body);

struct GapPrompt {
  std::vector<TokenId> tokens;
  bool is_shortened = false;
};

// The prompt that asks for what fills the gap. Texts that make more than `tokens_max` are shortened
// where they are farthest from it. Error: 400, the vocabulary has no tokens for gaps.
ApiResult<GapPrompt> encode_gap(const ModelInfo& model, const Gap& gap,
                                std::optional<size_t> tokens_max);

}  // namespace kvasir::serve
