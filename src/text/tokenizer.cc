#include "text/tokenizer.h"

#include <cmath>
#include <limits>

#include "base/check.h"
#include "text/ffi.h"
#include "text/token_bytes.h"

namespace kvasir::text {
namespace {

base::Status check_id(const Vocab& vocab, std::optional<TokenId> id, const char* name) {
  if (!id || (*id >= 0 && static_cast<size_t>(*id) < vocab.tokens.size())) return {};
  return base::bad_input(std::string("the vocabulary's ") + name + " id " + std::to_string(*id) +
                         " is not one of its " + std::to_string(vocab.tokens.size()) + " tokens");
}

base::Status check_ids(const Vocab& vocab) {
  RETURN_IF_ERROR(check_id(vocab, vocab.bos, "BOS"));
  RETURN_IF_ERROR(check_id(vocab, vocab.eos, "EOS"));
  RETURN_IF_ERROR(check_id(vocab, vocab.unknown, "unknown-token"));
  for (const TokenId id : vocab.end_of_generation) {
    RETURN_IF_ERROR(check_id(vocab, id, "end-of-generation"));
  }
  return {};
}

base::Status check_tables(const Vocab& vocab) {
  const size_t count = vocab.tokens.size();
  if (count == 0) return base::bad_input("the vocabulary has no tokens; convert the model again");
  if (count > static_cast<size_t>(std::numeric_limits<TokenId>::max())) {
    return base::bad_input("the vocabulary has more tokens than 32-bit ids can name");
  }
  const auto differs = [count](const char* table, size_t size) {
    return base::bad_input("the vocabulary has " + std::to_string(count) + " tokens but " +
                           std::to_string(size) + " " + table + "; convert the model again");
  };
  if (vocab.types.size() != count) return differs("token types", vocab.types.size());
  if (vocab.model == VocabModel::kSpm && vocab.scores.size() != count) {
    return differs("scores", vocab.scores.size());
  }
  for (size_t i = 0; i < vocab.scores.size(); ++i) {
    if (std::isnan(vocab.scores[i])) {
      return base::bad_input("the score of token " + std::to_string(i) + " is not a number");
    }
  }
  return check_ids(vocab);
}

KvasirVocab tables_of(const Vocab& vocab, const std::vector<KvasirText>& tokens,
                      const std::vector<KvasirText>& merges) {
  static_assert(sizeof(TokenType) == sizeof(uint8_t));
  return KvasirVocab{
      .model = vocab.model == VocabModel::kBpe ? KVASIR_BPE : KVASIR_SPM,
      .pre_tokenizer = to_ffi(vocab.pre_tokenizer),
      .tokens = tokens.data(),
      .types = reinterpret_cast<const uint8_t*>(vocab.types.data()),
      .token_count = tokens.size(),
      .scores = vocab.scores.data(),
      .score_count = vocab.scores.size(),
      .merges = merges.data(),
      .merge_count = merges.size(),
      .unknown = vocab.unknown.value_or(-1),
      .add_space_prefix = vocab.add_space_prefix,
  };
}

std::vector<KvasirText> texts_of(const std::vector<std::string>& strings) {
  std::vector<KvasirText> texts;
  texts.reserve(strings.size());
  for (const std::string& string : strings) texts.push_back(to_ffi(string));
  return texts;
}

}  // namespace

Tokenizer::Tokenizer(Vocab vocab, std::unique_ptr<Handle> handle)
    : vocab_(std::move(vocab)), handle_(std::move(handle)) {
  byte_offsets_.reserve(vocab_.tokens.size() + 1);
  byte_offsets_.push_back(0);
  for (size_t i = 0; i < vocab_.tokens.size(); ++i) {
    bytes_ += bytes_of_token(vocab_.model, vocab_.types[i], vocab_.tokens[i]);
    byte_offsets_.push_back(static_cast<uint32_t>(bytes_.size()));
  }
}

Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

base::Result<Tokenizer> Tokenizer::create(Vocab vocab) {
  RETURN_IF_ERROR(check_tables(vocab));
  uint64_t text_bytes = 0;
  for (const std::string& token : vocab.tokens) text_bytes += token.size();
  if (text_bytes > std::numeric_limits<uint32_t>::max()) {
    return base::bad_input("the vocabulary's tokens are longer than 4 GiB together");
  }
  const std::vector<KvasirText> tokens = texts_of(vocab.tokens);
  const std::vector<KvasirText> merges = texts_of(vocab.merges);
  const KvasirVocab tables = tables_of(vocab, tokens, merges);
  KvasirTokenizer* raw = nullptr;
  KvasirString error = {};
  if (const KvasirCode code = kvasir_tokenizer_create(&tables, &raw, &error); code != KVASIR_OK) {
    return ffi_error(code, error);
  }
  auto handle = std::make_unique<Handle>(raw);
  vocab.merges = std::vector<std::string>();  // the encoder has its own; {} would keep the memory
  return Tokenizer(std::move(vocab), std::move(handle));
}

base::Result<std::vector<TokenId>> Tokenizer::encode(std::string_view text,
                                                     SpecialText special) const {
  CHECK(handle_ != nullptr);
  KvasirIds ids = {};
  KvasirString error = {};
  const bool parse = special == SpecialText::kParse;
  const KvasirCode code =
      kvasir_tokenizer_encode(handle_->get(), to_ffi(text), parse, &ids, &error);
  if (code != KVASIR_OK) return ffi_error(code, error);
  return take(ids);
}

std::string_view Tokenizer::token_bytes(TokenId token) const {
  CHECK(token >= 0);
  const auto index = static_cast<size_t>(token);
  CHECK(index < vocab_.tokens.size());
  const uint32_t start = byte_offsets_[index];
  return std::string_view(bytes_).substr(start, byte_offsets_[index + 1] - start);
}

}  // namespace kvasir::text
