// Vocabularies merged by score, against a naive twin that looks for the best pair every time.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/rng.h"
#include "text/detokenizer.h"
#include "text/testing_vocab.h"

namespace kvasir::text {
namespace {

using testing::add_token;
using ::testing::ElementsAre;
using testing::make_tokenizer;
using testing::pieces;
using testing::spm_vocab;

const std::vector<std::string> kLetters = {"a", "b", "c", "é", "日", " "};

class Draw {
 public:
  explicit Draw(uint64_t seed) : seed_(seed) {}
  size_t below(size_t limit) { return base::random_bits({seed_, 0}, counter_++)[0] % limit; }
  std::string text(size_t letters_max) {
    std::string text;
    for (size_t left = below(letters_max) + 1; left > 0; --left) {
      text += kLetters[below(kLetters.size())];
    }
    return text;
  }

 private:
  uint64_t seed_;
  uint64_t counter_ = 0;
};

std::string with_marks(std::string_view text) {
  std::string marked;
  for (const char c : text) marked += c == ' ' ? std::string("\u2581") : std::string(1, c);
  return marked;
}

std::vector<std::string> split_characters(const std::string& text) {
  std::vector<std::string> characters;
  for (const char c : text) {
    const bool continues = (static_cast<unsigned char>(c) & 0xC0) == 0x80;
    if (!continues) characters.emplace_back();
    characters.back() += c;
  }
  return characters;
}

// The rule as it is stated: merge the pair of highest score, the leftmost of equals, until none.
std::vector<TokenId> naive_encode(const Vocab& vocab, const std::string& text) {
  std::map<std::string, TokenId> ids;
  for (size_t i = 257; i < vocab.tokens.size(); ++i) {
    ids.emplace(vocab.tokens[i], static_cast<TokenId>(i));
  }
  std::vector<std::string> parts = split_characters(with_marks(text));
  while (true) {
    std::optional<size_t> best;
    float score_best = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = ids.find(parts[i] + parts[i + 1]);
      if (found == ids.end()) continue;
      const float score = vocab.scores[static_cast<size_t>(found->second)];
      if (best && score <= score_best) continue;
      best = i;
      score_best = score;
    }
    if (!best) break;
    parts[*best] += parts[*best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(*best) + 1);
  }
  std::vector<TokenId> result;
  for (const std::string& part : parts) {
    if (const auto found = ids.find(part); found != ids.end()) {
      result.push_back(found->second);
    } else {
      for (const char c : part) result.push_back(1 + static_cast<unsigned char>(c));
    }
  }
  return result;
}

TEST(Spm, encodes_like_the_naive_twin) {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Draw draw(seed);
    Vocab vocab = spm_vocab();
    for (size_t left = 10 + draw.below(60); left > 0; --left) {
      // Few different scores, so that ties are frequent.
      add_token(vocab, with_marks(draw.text(5)), TokenType::kNormal,
                -static_cast<float>(draw.below(8)));
    }
    const Tokenizer tokenizer = make_tokenizer(vocab);
    for (int i = 0; i < 40; ++i) {
      const std::string text = draw.text(40);
      const auto ids = tokenizer.encode(text, SpecialText::kPlain);
      ASSERT_TRUE(ids);
      ASSERT_EQ(*ids, naive_encode(vocab, text)) << text;
    }
  }
}

TEST(Spm, a_space_is_put_before_the_text_and_after_special_tokens) {
  Vocab vocab = spm_vocab();
  vocab.add_space_prefix = true;
  add_token(vocab, "\u2581", TokenType::kNormal, -1);
  for (const char* token : {"\u2581a", "\u2581b", "a", "b"}) {
    add_token(vocab, token, TokenType::kNormal, -2);
  }
  add_token(vocab, "<s>", TokenType::kControl);
  const Tokenizer tokenizer = make_tokenizer(vocab);
  EXPECT_THAT(pieces(tokenizer, "ab", SpecialText::kParse), ElementsAre(" a", "b"));
  EXPECT_THAT(pieces(tokenizer, "a<s>b", SpecialText::kParse), ElementsAre(" a", "{<s>}", " b"));
  EXPECT_THAT(pieces(tokenizer, " a", SpecialText::kParse), ElementsAre(" ", " a"));
  EXPECT_THAT(pieces(tokenizer, "<s>", SpecialText::kParse), ElementsAre("{<s>}"));
  EXPECT_TRUE(pieces(tokenizer, "", SpecialText::kParse).empty());
}

TEST(Spm, whole_texts_lose_the_space_that_was_added) {
  Vocab vocab = spm_vocab();
  vocab.add_space_prefix = true;
  vocab.bos = add_token(vocab, "<s>", TokenType::kControl);
  add_token(vocab, "\u2581", TokenType::kNormal, -1);
  add_token(vocab, "\u2581a", TokenType::kNormal, -2);
  const Tokenizer tokenizer = make_tokenizer(vocab);
  for (const char* text : {"a", " a", "a a", "", "日 a "}) {
    auto ids = tokenizer.encode(text, SpecialText::kPlain);
    ASSERT_TRUE(ids);
    EXPECT_EQ(detokenize(tokenizer, *ids), text);
    ids->insert(ids->begin(), *vocab.bos);
    EXPECT_EQ(detokenize(tokenizer, *ids), text);
  }
  Detokenizer inside(tokenizer, false);
  EXPECT_EQ(inside.push(tokenizer.encode("a", SpecialText::kPlain)->at(0)), " a");
}

TEST(Spm, characters_without_tokens_become_bytes) {
  const Tokenizer tokenizer = make_tokenizer(spm_vocab());
  EXPECT_THAT(*tokenizer.encode("é", SpecialText::kPlain), ElementsAre(1 + 0xC3, 1 + 0xA9));
}

TEST(Spm, without_all_byte_tokens_the_unknown_token_stands_in) {
  Vocab vocab = spm_vocab();
  vocab.types[1 + 0xA9] = TokenType::kUnused;
  EXPECT_THAT(*make_tokenizer(vocab).encode("éa", SpecialText::kPlain), ElementsAre(0, 1 + 'a'));
}

TEST(Spm, text_that_looks_like_a_byte_token_stays_text) {
  const Tokenizer tokenizer = make_tokenizer(spm_vocab());
  const auto ids = tokenizer.encode("<0x0A>", SpecialText::kParse);
  ASSERT_TRUE(ids);
  EXPECT_EQ(detokenize(tokenizer, *ids), "<0x0A>");
}

}  // namespace
}  // namespace kvasir::text
