#include "serve/prompts.h"

#include <fmt/format.h>

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

// Writes a prompt of several texts and the tokens between them.
class PromptWriter {
 public:
  explicit PromptWriter(const ModelInfo& model) : model_(model) {}

  void token(std::optional<TokenId> token) {
    if (token) tokens_.push_back(*token);
  }
  ApiStatus text(std::string_view text, std::string_view param) {
    ASSIGN_OR_RETURN(const std::vector<TokenId> ids, encode_text(model_, text, param));
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    return {};
  }
  std::vector<TokenId> take() { return std::move(tokens_); }

 private:
  const ModelInfo& model_;
  std::vector<TokenId> tokens_;
};

// Further files come first, each after the token that begins a file; without that token their names
// stand in lines of their own.
ApiStatus write_files(PromptWriter& writer, const Gap& gap, const text::FillTokens& fill) {
  if (gap.files.empty()) return {};
  const bool has_tokens = fill.repository && fill.file;
  if (has_tokens) {
    writer.token(fill.repository);
    RETURN_IF_ERROR(writer.text("repository\n", "input_extra"));
  }
  for (const ExtraFile& file : gap.files) {
    if (has_tokens) writer.token(fill.file);
    RETURN_IF_ERROR(writer.text(fmt::format("{}\n{}\n", file.name, file.text), "input_extra"));
  }
  if (!has_tokens) return {};
  writer.token(fill.file);
  return writer.text("main\n", "input_extra");
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

ApiResult<std::vector<TokenId>> encode_gap(const ModelInfo& model, const Gap& gap) {
  const text::Vocab& vocab = model.tokenizer->vocab();
  const text::FillTokens& fill = vocab.fill;
  if (!fill.prefix || !fill.suffix || !fill.middle) {
    return std::unexpected(ApiError{
        .message = "The model's vocabulary has no tokens to fill in the middle; use a model that "
                   "was trained for it, or leave out what follows the gap.",
        .param = std::string(gap.suffix_param),
        .code = "unsupported_parameter"});
  }
  PromptWriter writer(model);
  if (vocab.add_bos) writer.token(vocab.bos);
  RETURN_IF_ERROR(write_files(writer, gap, fill));
  const auto write_prefix = [&]() -> ApiStatus {
    writer.token(fill.prefix);
    return writer.text(gap.prefix, gap.prefix_param);
  };
  const auto write_suffix = [&]() -> ApiStatus {
    writer.token(fill.suffix);
    return writer.text(gap.suffix, gap.suffix_param);
  };
  if (model.suffix_first) RETURN_IF_ERROR(write_suffix());
  RETURN_IF_ERROR(write_prefix());
  if (!model.suffix_first) RETURN_IF_ERROR(write_suffix());
  writer.token(fill.middle);
  RETURN_IF_ERROR(writer.text(gap.begun, "prompt"));
  return writer.take();
}

}  // namespace kvasir::serve
