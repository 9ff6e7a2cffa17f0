#include <gtest/gtest.h>

#include <cstdio>
#include <set>

#include "base/check.h"
#include "text/testing_vocab.h"

namespace kvasir::text::testing {

std::vector<std::string> gpt2_letters(std::string_view bytes) {
  const auto is_printable = [](int byte) {
    return (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte != 173);
  };
  std::vector<std::string> letters;
  for (const char c : bytes) {
    const int byte = static_cast<unsigned char>(c);
    int code = byte;
    if (!is_printable(byte)) {
      code = 256;
      for (int below = 0; below < byte; ++below) code += is_printable(below) ? 0 : 1;
    }
    if (code < 128) {
      letters.emplace_back(1, static_cast<char>(code));
    } else {
      letters.push_back({static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | code % 64)});
    }
  }
  return letters;
}

TokenId add_token(Vocab& vocab, const std::string& text, TokenType type, float score) {
  vocab.tokens.push_back(text);
  vocab.types.push_back(type);
  if (vocab.model == VocabModel::kSpm) vocab.scores.push_back(score);
  return static_cast<TokenId>(vocab.tokens.size() - 1);
}

Vocab bpe_vocab(std::string pre_tokenizer, const std::vector<std::string>& words) {
  Vocab vocab;
  vocab.pre_tokenizer = std::move(pre_tokenizer);
  std::set<std::string> known;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string letter = gpt2_letters(std::string(1, static_cast<char>(byte)))[0];
    known.insert(letter);
    add_token(vocab, letter, TokenType::kNormal);
  }
  for (const std::string& word : words) {
    std::string prefix;
    for (const std::string& letter : gpt2_letters(word)) {
      const std::string merge = prefix + ' ' + letter;
      const bool is_first = prefix.empty();
      prefix += letter;
      if (is_first || !known.insert(prefix).second) continue;
      vocab.merges.push_back(merge);
      add_token(vocab, prefix, TokenType::kNormal);
    }
  }
  return vocab;
}

Vocab spm_vocab() {
  Vocab vocab;
  vocab.model = VocabModel::kSpm;
  vocab.unknown = add_token(vocab, "<unk>", TokenType::kUnknown);
  for (unsigned byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof text, "<0x%02X>", byte);
    add_token(vocab, text, TokenType::kByte);
  }
  return vocab;
}

Tokenizer make_tokenizer(Vocab vocab) {
  auto tokenizer = Tokenizer::create(std::move(vocab));
  if (!tokenizer) ADD_FAILURE() << tokenizer.error().message;
  CHECK(tokenizer.has_value());
  return std::move(*tokenizer);
}

std::string show(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::string text;
  for (const TokenId id : ids) {
    const auto index = static_cast<size_t>(id);
    if (tokenizer.vocab().types[index] == TokenType::kControl) {
      text += '{' + tokenizer.vocab().tokens[index] + '}';
    } else {
      text += tokenizer.token_bytes(id);
    }
  }
  return text;
}

std::vector<std::string> pieces(const Tokenizer& tokenizer, std::string_view text,
                                SpecialText special) {
  const auto ids = tokenizer.encode(text, special);
  if (!ids) ADD_FAILURE() << ids.error().message;
  std::vector<std::string> shown;
  for (const TokenId id : ids.value_or(std::vector<TokenId>())) {
    shown.push_back(show(tokenizer, {id}));
  }
  return shown;
}

namespace {

TEST(TestingVocab, alphabet_agrees_with_the_inverse_map) {
  const Tokenizer tokenizer = make_tokenizer(bpe_vocab("gpt-2", {}));
  for (int byte = 0; byte < 256; ++byte) {
    EXPECT_EQ(tokenizer.token_bytes(byte), std::string(1, static_cast<char>(byte)));
  }
}

}  // namespace
}  // namespace kvasir::text::testing
