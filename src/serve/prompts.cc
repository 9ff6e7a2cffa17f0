#include "serve/prompts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "api/prompt.h"
#include "api/text_tools.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

constexpr size_t kExtraFilesMax = 1024;

bool is_list_of_numbers(const json::value& value) {
  const json::array* list = value.if_array();
  return list != nullptr && !list->empty() && list->front().is_number();
}

ApiResult<Prompt> read_prompt(const ModelInfo& model, const json::value& value,
                              const std::string& place) {
  if (const json::string* text = value.if_string()) {
    RETURN_IF_ERROR(check_text_size(model, text->size(), place));
    auto tokens = api::encode_prompt(*model.tokenizer, *text);
    if (!tokens) return invalid(place, std::move(tokens.error().message));
    return Prompt{.tokens = *std::move(tokens), .text = std::string(*text)};
  }
  if (!is_list_of_numbers(value)) {
    return invalid(place, fmt::format("'{}' must be a text or a list of token ids.", place));
  }
  ASSIGN_OR_RETURN(std::vector<TokenId> tokens, read_tokens(value, place, model.vocab_size()));
  auto text = api::detokenize_checked(*model.tokenizer, tokens);
  if (!text) return invalid(place, std::move(text.error().message));
  return Prompt{.tokens = std::move(tokens), .text = *std::move(text)};
}

// The texts around a gap as tokens.
struct GapTokens {
  std::vector<std::vector<TokenId>> files;
  std::vector<TokenId> prefix;
  std::vector<TokenId> suffix;
  std::vector<TokenId> begun;

  size_t size() const {
    size_t tokens = prefix.size() + suffix.size() + begun.size();
    for (const std::vector<TokenId>& file : files) tokens += file.size();
    return tokens;
  }
};

void append(std::vector<TokenId>& tokens, const std::vector<TokenId>& more) {
  tokens.insert(tokens.end(), more.begin(), more.end());
}
void append(std::vector<TokenId>& tokens, std::optional<TokenId> token) {
  if (token) tokens.push_back(*token);
}

// Each file begins with its token; without that token their names stand in lines of their own.
ApiResult<std::vector<std::vector<TokenId>>> encode_files(const ModelInfo& model, const Gap& gap,
                                                          const text::FillTokens& fill) {
  const bool has_tokens = fill.repository && fill.file;
  std::vector<std::vector<TokenId>> files;
  for (const ExtraFile& file : gap.files) {
    std::vector<TokenId>& tokens = files.emplace_back();
    if (has_tokens) append(tokens, fill.file);
    const std::string text = fmt::format("{}\n{}\n", file.name, file.text);
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids, encode_text(model, text, "input_extra"));
    append(tokens, ids);
  }
  return files;
}

ApiResult<GapTokens> encode_parts(const ModelInfo& model, const Gap& gap,
                                  const text::FillTokens& fill) {
  GapTokens parts;
  ASSIGN_OR_RETURN(parts.files, encode_files(model, gap, fill));
  ASSIGN_OR_RETURN(parts.prefix, encode_text(model, gap.prefix, gap.prefix_param));
  ASSIGN_OR_RETURN(parts.suffix, encode_text(model, gap.suffix, gap.suffix_param));
  ASSIGN_OR_RETURN(parts.begun, encode_text(model, gap.begun, "prompt"));
  return parts;
}

// Leaves out what is farthest from the gap: files, the first ones first, then the prefix's
// beginning, then the suffix's end.
void shorten(GapTokens& parts, size_t tokens_max) {
  size_t over = parts.size() - std::min(parts.size(), tokens_max);
  size_t files_over = 0;
  while (over > 0 && files_over < parts.files.size()) {
    over -= std::min(over, parts.files[files_over++].size());
  }
  parts.files.erase(parts.files.begin(), parts.files.begin() + static_cast<ptrdiff_t>(files_over));
  const size_t of_prefix = std::min(over, parts.prefix.size());
  parts.prefix.erase(parts.prefix.begin(),
                     parts.prefix.begin() + static_cast<ptrdiff_t>(of_prefix));
  parts.suffix.resize(parts.suffix.size() - std::min(over - of_prefix, parts.suffix.size()));
}

}  // namespace

ApiResult<std::vector<TokenId>> encode_text(const ModelInfo& model, std::string_view text,
                                            std::string_view param) {
  RETURN_IF_ERROR(check_text_size(model, text.size(), param));
  auto tokens = model.tokenizer->encode(text, text::SpecialText::kPlain);
  if (!tokens) return invalid(std::string(param), std::move(tokens.error().message));
  return *std::move(tokens);
}

ApiResult<std::vector<Prompt>> read_prompts(const ModelInfo& model, const json::object& body) {
  const json::value* value = find(body, "prompt");
  if (value == nullptr) return invalid("prompt", "'prompt' is missing.");
  std::vector<Prompt> prompts;
  const json::array* list = value->if_array();
  if (list == nullptr || is_list_of_numbers(*value)) {
    ASSIGN_OR_RETURN(Prompt prompt, read_prompt(model, *value, "prompt"));
    prompts.push_back(std::move(prompt));
    return prompts;
  }
  if (list->empty() || list->size() > model.prompts_max) {
    return invalid("prompt", fmt::format("'prompt' must be a text, a list of token ids or a list "
                                         "of 1 to {} of these.",
                                         model.prompts_max));
  }
  for (const json::value& entry : *list) {
    ASSIGN_OR_RETURN(Prompt prompt,
                     read_prompt(model, entry, fmt::format("prompt[{}]", prompts.size())));
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

ApiResult<Gap> read_gap(const json::object& body) {
  Gap gap;
  ASSIGN_OR_RETURN(gap.prefix, read_string_or(body, "input_prefix", ""));
  ASSIGN_OR_RETURN(gap.suffix, read_string_or(body, "input_suffix", ""));
  ASSIGN_OR_RETURN(gap.begun, read_string_or(body, "prompt", ""));
  const json::value* extra = find(body, "input_extra");
  if (extra == nullptr) return gap;
  const json::array* files = extra->if_array();
  if (files == nullptr || files->size() > kExtraFilesMax) {
    return invalid("input_extra",
                   fmt::format("'input_extra' must be a list of up to {} files.", kExtraFilesMax));
  }
  for (const json::value& entry : *files) {
    const std::string place = fmt::format("input_extra[{}]", gap.files.size());
    const json::object* file = entry.if_object();
    if (file == nullptr) return invalid(place, fmt::format("'{}' must be an object.", place));
    ASSIGN_OR_RETURN(std::string text, read_required_string(*file, "text", place + ".text"));
    std::string name = "tmp";
    if (const json::value* given = find(*file, "filename")) {
      ASSIGN_OR_RETURN(name, read_string(*given, place + ".filename"));
    }
    gap.files.push_back({.name = std::move(name), .text = std::move(text)});
  }
  return gap;
}

ApiResult<GapPrompt> encode_gap(const ModelInfo& model, const Gap& gap,
                                std::optional<size_t> tokens_max) {
  const text::Vocab& vocab = model.tokenizer->vocab();
  const text::FillTokens& fill = vocab.fill;
  if (!fill.prefix || !fill.suffix || !fill.middle) {
    return std::unexpected(ApiError{
        .message = "The model's vocabulary has no tokens to fill in the middle; use a model that "
                   "was trained for it, or leave out what follows the gap.",
        .param = std::string(gap.suffix_param),
        .code = "unsupported_parameter"});
  }
  ASSIGN_OR_RETURN(GapTokens parts, encode_parts(model, gap, fill));
  ASSIGN_OR_RETURN(const std::vector<TokenId> repository, encode_text(model, "repository\n", ""));
  ASSIGN_OR_RETURN(const std::vector<TokenId> main_file, encode_text(model, "main\n", ""));
  const size_t marks = repository.size() + main_file.size() + 6;  // and the tokens between texts
  const size_t tokens_before = parts.size();
  if (tokens_max) shorten(parts, *tokens_max - std::min(*tokens_max, marks));

  GapPrompt prompt{.is_shortened = parts.size() < tokens_before};
  const bool has_file_tokens = !parts.files.empty() && fill.repository && fill.file;
  if (vocab.add_bos) append(prompt.tokens, vocab.bos);
  if (has_file_tokens) {
    append(prompt.tokens, fill.repository);
    append(prompt.tokens, repository);
  }
  for (const std::vector<TokenId>& file : parts.files) append(prompt.tokens, file);
  if (has_file_tokens) {
    append(prompt.tokens, fill.file);
    append(prompt.tokens, main_file);
  }
  const auto write_suffix = [&] {
    append(prompt.tokens, fill.suffix);
    append(prompt.tokens, parts.suffix);
  };
  if (model.suffix_first) write_suffix();
  append(prompt.tokens, fill.prefix);
  append(prompt.tokens, parts.prefix);
  if (!model.suffix_first) write_suffix();
  append(prompt.tokens, fill.middle);
  append(prompt.tokens, parts.begun);
  return prompt;
}

}  // namespace kvasir::serve
