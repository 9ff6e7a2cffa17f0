// How each pre-tokenizer cuts text: a word that could be one token is one only where it is not cut.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "text/testing_vocab.h"

namespace kvasir::text {
namespace {

using testing::bpe_vocab;
using ::testing::ElementsAre;
using testing::make_tokenizer;

std::vector<std::string> cut(const std::string& pre, const std::string& text,
                             const std::vector<std::string>& words) {
  return testing::pieces(make_tokenizer(bpe_vocab(pre, words)), text);
}

TEST(PreTokenizer, numbers_are_grouped_by_family) {
  const std::vector<std::string> words = {"12345"};
  EXPECT_THAT(cut("gpt-2", "12345", words), ElementsAre("12345"));
  EXPECT_THAT(cut("smollm", "12345", words), ElementsAre("1", "2", "3", "4", "5"));
  EXPECT_THAT(cut("qwen2", "12345", words), ElementsAre("1", "2", "3", "4", "5"));
  EXPECT_THAT(cut("llama-bpe", "12345", {"123", "45", "12345"}).front(), "123");
}

TEST(PreTokenizer, llama_numbers_come_in_threes) {
  EXPECT_THAT(cut("llama3", "1234567", {"123", "456", "4567"}), ElementsAre("123", "456", "7"));
}

TEST(PreTokenizer, every_unicode_number_counts) {
  // Fraction, Arabic-Indic digits, Roman numeral; the CJK numerals are letters.
  const std::vector<std::string> words = {"½٣٤ⅷ", "½", "٣", "٤", "ⅷ", "七八"};
  EXPECT_THAT(cut("smollm", "½٣٤ⅷ七八", words), ElementsAre("½", "٣", "٤", "ⅷ", "七八"));
  EXPECT_THAT(cut("gpt-2", "½٣٤ⅷ七八", words), ElementsAre("½٣٤ⅷ", "七八"));
}

TEST(PreTokenizer, contractions_in_lower_case) {
  for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    EXPECT_THAT(cut(pre, "I don't", {" don't", "'t"}), ElementsAre("I", " don", "'t")) << pre;
  }
}

TEST(PreTokenizer, contractions_in_upper_case_differ_by_family) {
  const std::vector<std::string> words = {"DON'T", "'T"};
  EXPECT_THAT(cut("gpt-2", "DON'T", words), ElementsAre("DON", "'", "T"));
  EXPECT_THAT(cut("smollm", "DON'T", words), ElementsAre("DON", "'", "T"));
  EXPECT_THAT(cut("llama-bpe", "DON'T", words), ElementsAre("DON", "'T"));
  EXPECT_THAT(cut("qwen2", "DON'T", words), ElementsAre("DON", "'T"));
}

TEST(PreTokenizer, the_last_space_goes_with_the_word) {
  for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    EXPECT_THAT(cut(pre, "a   b  ", {"   ", "  ", " b  "}), ElementsAre("a", "  ", " b", "  "))
        << pre;
  }
}

TEST(PreTokenizer, spaces_before_a_lone_number_stay_together) {
  const std::vector<std::string> words = {"   ", "  ", " 1"};
  EXPECT_THAT(cut("smollm", "a   1", words), ElementsAre("a", "   ", "1"));
  EXPECT_THAT(cut("gpt-2", "a   1", words), ElementsAre("a", "  ", " 1"));
}

TEST(PreTokenizer, newlines_follow_punctuation_in_the_newer_families) {
  const std::vector<std::string> words = {"!\n\n", "\n\n"};
  EXPECT_THAT(cut("llama-bpe", "x!\n\ny", words), ElementsAre("x", "!\n\n", "y"));
  EXPECT_THAT(cut("qwen2", "x!\n\ny", words), ElementsAre("x", "!\n\n", "y"));
  EXPECT_THAT(cut("gpt-2", "x!\n\ny", words), ElementsAre("x", "!", "\n", "\n", "y"));
}

TEST(PreTokenizer, one_sign_may_lead_a_word_in_the_newer_families) {
  const std::vector<std::string> words = {"(hello"};
  EXPECT_THAT(cut("llama-bpe", "(hello", words), ElementsAre("(hello"));
  EXPECT_EQ(cut("gpt-2", "(hello", words).front(), "(");
}

TEST(PreTokenizer, letters_of_all_scripts_form_words) {
  for (const char* pre : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    EXPECT_THAT(cut(pre, "日本語。", {"日本語。", "。"}), ElementsAre("日本語", "。")) << pre;
    EXPECT_THAT(cut(pre, "Straße!", {"Straße!"}), ElementsAre("Straße", "!")) << pre;
  }
}

TEST(PreTokenizer, only_the_llama_family_prefers_whole_tokens_to_merges) {
  Vocab vocab = bpe_vocab("llama-bpe", {});
  testing::add_token(vocab, "hello", TokenType::kNormal);
  EXPECT_THAT(testing::pieces(make_tokenizer(vocab), "hello"), ElementsAre("hello"));
  vocab.pre_tokenizer = "qwen2";
  EXPECT_THAT(testing::pieces(make_tokenizer(vocab), "hello"),
              ElementsAre("h", "e", "l", "l", "o"));
}

TEST(PreTokenizer, unknown_names_are_refused_with_the_known_ones) {
  const auto tokenizer = Tokenizer::create(bpe_vocab("no-such-thing", {}));
  ASSERT_FALSE(tokenizer);
  EXPECT_EQ(tokenizer.error().kind, base::ErrorKind::kBadInput);
  EXPECT_THAT(tokenizer.error().message, ::testing::HasSubstr("\"no-such-thing\""));
  EXPECT_THAT(tokenizer.error().message, ::testing::HasSubstr("smollm"));
  EXPECT_THAT(tokenizer.error().message, ::testing::HasSubstr("qwen2"));
}

}  // namespace
}  // namespace kvasir::text
