#include "load/read_vocab.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "load/keys.h"

namespace kvasir::load {
namespace {

constexpr uint64_t kMaxTokens = uint64_t{1} << 20;

// Pre-tokenizers whose models begin every text with BOS unless the file says otherwise.
constexpr std::string_view kPreWithBos[] = {"llama-bpe", "llama3",    "llama-v3", "tekken",
                                            "falcon3",   "falcon-h1", "pixtral",  "lfm2",
                                            "midm-2.0",  "chameleon"};

// Texts that end an answer wherever a vocabulary has them, whatever the keys say.
constexpr std::string_view kEndTexts[] = {"<|eot_id|>",
                                          "<|im_end|>",
                                          "<|end|>",
                                          "<|return|>",
                                          "<|call|>",
                                          "<|flush|>",
                                          "<|calls|>",
                                          "<end_of_turn>",
                                          "<|endoftext|>",
                                          "</s>",
                                          "<|eom_id|>",
                                          "<EOT>",
                                          "_<EOT>",
                                          "[EOT]",
                                          "[EOS]",
                                          "<|end_of_text|>",
                                          "<end_of_utterance>",
                                          "<eos>",
                                          "<turn|>",
                                          "<|tool_response>",
                                          "<｜end▁of▁sentence｜>"};

// Tokens of fill-in-the-middle training: found by the first key that the file has, else by the
// first of these texts that is a token. The second keys are those of older files.
struct FillNames {
  std::string_view key;
  std::string_view older_key;  // empty: none
  std::span<const std::string_view> texts;
};
constexpr std::string_view kPrefixTexts[] = {"<|fim_prefix|>",  "<fim-prefix>", "<fim_prefix>",
                                             "<|code_prefix|>", "<PRE>",        "▁<PRE>",
                                             "<｜fim▁begin｜>"};
constexpr std::string_view kSuffixTexts[] = {"<|fim_suffix|>",  "<fim-suffix>", "<fim_suffix>",
                                             "<|code_suffix|>", "<SUF>",        "▁<SUF>",
                                             "<｜fim▁hole｜>"};
constexpr std::string_view kMiddleTexts[] = {"<|fim_middle|>",  "<fim-middle>", "<fim_middle>",
                                             "<|code_middle|>", "<MID>",        "▁<MID>",
                                             "<｜fim▁end｜>"};
constexpr std::string_view kPadTexts[] = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>",
                                          "[PAD]"};
constexpr std::string_view kRepoTexts[] = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>",
                                           "<reponame>"};
constexpr std::string_view kFileTexts[] = {"<|file_sep|>"};
constexpr FillNames kPrefixNames{"fim_pre_token_id", "prefix_token_id", kPrefixTexts};
constexpr FillNames kSuffixNames{"fim_suf_token_id", "suffix_token_id", kSuffixTexts};
constexpr FillNames kMiddleNames{"fim_mid_token_id", "middle_token_id", kMiddleTexts};
constexpr FillNames kPadNames{"fim_pad_token_id", "", kPadTexts};
constexpr FillNames kRepoNames{"fim_rep_token_id", "", kRepoTexts};
constexpr FillNames kFileNames{"fim_sep_token_id", "", kFileTexts};

class VocabReader {
 public:
  explicit VocabReader(const gguf::GgufFile& file) : file_(file), keys_(file, "tokenizer.ggml.") {}

  base::Result<text::Vocab> read();

 private:
  bool is_spm() const { return vocab_.model == text::VocabModel::kSpm; }

  base::Status read_model();
  base::Status read_tokens();
  base::Status read_scores();
  base::Status read_types();
  base::Status read_merges();
  base::Status read_special_ids();
  base::Status read_flags();
  base::Status read_fill_tokens();
  base::Status read_end_of_generation();

  base::Result<std::optional<TokenId>> read_id(std::string_view key) const;
  // The key's id; else `fallback`, where that is a token.
  base::Result<std::optional<TokenId>> read_id_or(std::string_view key, TokenId fallback) const;
  base::Result<std::optional<TokenId>> read_fill_token(const FillNames& names) const;
  std::optional<TokenId> find_token(std::string_view text) const;
  base::Status expect_one_per_token(std::string_view key, size_t count) const;

  const gguf::GgufFile& file_;
  const Keys keys_;
  text::Vocab vocab_;
  std::unordered_map<std::string_view, TokenId> ids_;  // the lowest id of each text
};

base::Result<text::Vocab> VocabReader::read() {
  RETURN_IF_ERROR(read_model());
  RETURN_IF_ERROR(read_tokens());
  RETURN_IF_ERROR(read_scores());
  RETURN_IF_ERROR(read_types());
  RETURN_IF_ERROR(read_merges());
  RETURN_IF_ERROR(read_special_ids());
  RETURN_IF_ERROR(read_flags());
  RETURN_IF_ERROR(read_fill_tokens());
  RETURN_IF_ERROR(read_end_of_generation());
  return std::move(vocab_);
}

base::Status VocabReader::read_model() {
  ASSIGN_OR_RETURN(const auto model, file_.get_string(keys_.full("model")));
  if (!model) return keys_.refuse("model", "missing; convert the model with its tokenizer");
  if (*model != "gpt2" && *model != "llama") {
    return keys_.refuse("model", fmt::format("{} is not supported; supported: gpt2, llama",
                                             gguf::printable(*model)));
  }
  vocab_.model = *model == "llama" ? text::VocabModel::kSpm : text::VocabModel::kBpe;
  ASSIGN_OR_RETURN(const auto pre, file_.get_string(keys_.full("pre")));
  vocab_.pre_tokenizer = pre.value_or("");
  return {};
}

base::Status VocabReader::read_tokens() {
  ASSIGN_OR_RETURN(const auto tokens, file_.get_strings(keys_.full("tokens")));
  if (!tokens) return keys_.refuse("tokens", "missing; convert the model with its tokenizer");
  if (tokens->empty() || tokens->size() > kMaxTokens) {
    return keys_.refuse("tokens", fmt::format("{} tokens are not 1 to {}; convert the model again",
                                              tokens->size(), kMaxTokens));
  }
  vocab_.tokens.assign(tokens->begin(), tokens->end());
  ids_.reserve(tokens->size());
  for (size_t i = 0; i < tokens->size(); ++i) ids_.emplace((*tokens)[i], static_cast<TokenId>(i));
  return {};
}

base::Status VocabReader::expect_one_per_token(std::string_view key, size_t count) const {
  if (count == vocab_.tokens.size()) return {};
  return keys_.refuse(key, fmt::format("{} entries for {} tokens; convert the model again", count,
                                       vocab_.tokens.size()));
}

base::Status VocabReader::read_scores() {
  if (!is_spm()) return {};
  ASSIGN_OR_RETURN(auto scores, file_.get_floats(keys_.full("scores")));
  if (!scores) return keys_.refuse("scores", "missing; convert the model again");
  RETURN_IF_ERROR(expect_one_per_token("scores", scores->size()));
  if (std::ranges::any_of(*scores, [](float score) { return !std::isfinite(score); })) {
    return keys_.refuse("scores", "a score is not finite; convert the model again");
  }
  vocab_.scores = *std::move(scores);
  return {};
}

base::Status VocabReader::read_types() {
  vocab_.types.assign(vocab_.tokens.size(), text::TokenType::kNormal);
  ASSIGN_OR_RETURN(const auto types, file_.get_integers(keys_.full("token_type")));
  if (!types) return {};
  RETURN_IF_ERROR(expect_one_per_token("token_type", types->size()));
  for (size_t i = 0; i < types->size(); ++i) {
    const int64_t type = (*types)[i];
    if (type == 0) continue;  // "undefined" in old files: normal
    if (type < 0 || type > static_cast<int64_t>(text::TokenType::kByte)) {
      return keys_.refuse("token_type",
                          fmt::format("{} of token {} is not 0 to 6; convert the model "
                                      "again",
                                      type, i));
    }
    vocab_.types[i] = static_cast<text::TokenType>(type);
  }
  return {};
}

base::Status VocabReader::read_merges() {
  if (is_spm()) return {};
  ASSIGN_OR_RETURN(const auto merges, file_.get_strings(keys_.full("merges")));
  if (!merges) return keys_.refuse("merges", "missing; convert the model again");
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string_view merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos || space + 1 == merge.size()) {
      return keys_.refuse("merges", fmt::format("merge {} {} is not two parts; convert the model "
                                                "again",
                                                i, gguf::printable(merge)));
    }
  }
  vocab_.merges.assign(merges->begin(), merges->end());
  return {};
}

base::Result<std::optional<TokenId>> VocabReader::read_id(std::string_view key) const {
  ASSIGN_OR_RETURN(const auto id,
                   keys_.optional_unsigned(key, {.min = 0, .max = vocab_.tokens.size() - 1}));
  if (!id) return std::nullopt;
  return static_cast<TokenId>(*id);
}

base::Result<std::optional<TokenId>> VocabReader::read_id_or(std::string_view key,
                                                             TokenId fallback) const {
  ASSIGN_OR_RETURN(const auto id, read_id(key));
  if (id) return id;
  if (static_cast<size_t>(fallback) >= vocab_.tokens.size()) return std::nullopt;
  return fallback;
}

// The fall-backs are the format's: those of Llama's first vocabulary, and 11 for byte-level BPE.
base::Status VocabReader::read_special_ids() {
  ASSIGN_OR_RETURN(vocab_.bos, read_id_or("bos_token_id", is_spm() ? 1 : 11));
  ASSIGN_OR_RETURN(vocab_.eos, read_id_or("eos_token_id", is_spm() ? 2 : 11));
  ASSIGN_OR_RETURN(vocab_.unknown,
                   is_spm() ? read_id_or("unknown_token_id", 0) : read_id("unknown_token_id"));
  return {};
}

base::Status VocabReader::read_flags() {
  const bool bos_by_pre =
      std::ranges::find(kPreWithBos, vocab_.pre_tokenizer) != std::end(kPreWithBos);
  ASSIGN_OR_RETURN(const auto add_bos, file_.get_bool(keys_.full("add_bos_token")));
  ASSIGN_OR_RETURN(const auto add_eos, file_.get_bool(keys_.full("add_eos_token")));
  ASSIGN_OR_RETURN(const auto add_space, file_.get_bool(keys_.full("add_space_prefix")));
  vocab_.add_bos = add_bos.value_or(is_spm() || bos_by_pre);
  vocab_.add_eos = add_eos.value_or(false);
  vocab_.add_space_prefix = is_spm() && add_space.value_or(true);
  if (vocab_.add_bos && !vocab_.bos) {
    return keys_.refuse("bos_token_id", "missing, yet texts shall begin with it; convert again");
  }
  if (vocab_.add_eos && !vocab_.eos) {
    return keys_.refuse("eos_token_id", "missing, yet texts shall end with it; convert again");
  }
  return {};
}

std::optional<TokenId> VocabReader::find_token(std::string_view text) const {
  const auto found = ids_.find(text);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

base::Result<std::optional<TokenId>> VocabReader::read_fill_token(const FillNames& names) const {
  ASSIGN_OR_RETURN(auto id, read_id(names.key));
  if (!id && !names.older_key.empty()) {
    ASSIGN_OR_RETURN(id, read_id(names.older_key));
  }
  for (size_t i = 0; i < names.texts.size() && !id; ++i) id = find_token(names.texts[i]);
  return id;
}

base::Status VocabReader::read_fill_tokens() {
  ASSIGN_OR_RETURN(vocab_.fill.prefix, read_fill_token(kPrefixNames));
  ASSIGN_OR_RETURN(vocab_.fill.suffix, read_fill_token(kSuffixNames));
  ASSIGN_OR_RETURN(vocab_.fill.middle, read_fill_token(kMiddleNames));
  ASSIGN_OR_RETURN(vocab_.fill.repository, read_fill_token(kRepoNames));
  ASSIGN_OR_RETURN(vocab_.fill.file, read_fill_token(kFileNames));
  return {};
}

base::Status VocabReader::read_end_of_generation() {
  std::set<TokenId> ends;
  if (vocab_.eos) ends.insert(*vocab_.eos);
  for (const std::string_view key : {"eot_token_id", "eom_token_id"}) {
    ASSIGN_OR_RETURN(const auto id, read_id(key));
    if (id) ends.insert(*id);
  }
  for (const std::string_view text : kEndTexts) {
    if (const auto id = find_token(text)) ends.insert(*id);
  }
  // These three of fill-in-the-middle training also end an answer.
  ASSIGN_OR_RETURN(const auto pad, read_fill_token(kPadNames));
  for (const auto& id : {pad, vocab_.fill.repository, vocab_.fill.file}) {
    if (id) ends.insert(*id);
  }
  // In these two families the token also occurs inside an answer.
  const auto drop = [&](std::string_view text) {
    if (const auto id = find_token(text)) ends.erase(*id);
  };
  if (find_token("<|return|>") && find_token("<|call|>")) drop("<|end|>");
  if (find_token("<|tool_response>")) drop("</s>");
  vocab_.end_of_generation.assign(ends.begin(), ends.end());
  return {};
}

}  // namespace

base::Result<text::Vocab> read_vocab(const gguf::GgufFile& file) {
  return VocabReader(file).read();
}

}  // namespace kvasir::load
