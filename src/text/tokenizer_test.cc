#include "text/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "text/testing_vocab.h"

namespace kvasir::text {
namespace {

using testing::add_token;
using testing::bpe_vocab;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::make_tokenizer;
using testing::pieces;
using testing::spm_vocab;

std::string refusal(Vocab vocab) {
  const auto tokenizer = Tokenizer::create(std::move(vocab));
  if (tokenizer) return "accepted";
  EXPECT_EQ(tokenizer.error().kind, base::ErrorKind::kBadInput);
  EXPECT_EQ(tokenizer.error().message.find('\n'), std::string::npos);
  return tokenizer.error().message;
}

TEST(Tokenizer, merges_by_rank_leftmost_first) {
  Vocab vocab = bpe_vocab("gpt-2", {});
  for (const char* token : {"ab", "aa", "bc"}) add_token(vocab, token, TokenType::kNormal);
  vocab.merges = {"b c", "a a", "a b"};
  const Tokenizer tokenizer = make_tokenizer(vocab);
  EXPECT_THAT(pieces(tokenizer, "abc"), ElementsAre("a", "bc"));
  EXPECT_THAT(pieces(tokenizer, "aaab"), ElementsAre("aa", "ab"));
}

TEST(Tokenizer, of_repeated_merges_the_first_counts) {
  Vocab vocab = bpe_vocab("gpt-2", {});
  for (const char* token : {"ab", "bc"}) add_token(vocab, token, TokenType::kNormal);
  vocab.merges = {"a b", "b c", "a b"};
  EXPECT_THAT(pieces(make_tokenizer(vocab), "abc"), ElementsAre("ab", "c"));
}

TEST(Tokenizer, of_repeated_tokens_the_first_counts) {
  Vocab vocab = bpe_vocab("gpt-2", {"ab"});
  const TokenId again = add_token(vocab, "ab", TokenType::kNormal);
  const auto ids = make_tokenizer(vocab).encode("ab", SpecialText::kPlain);
  ASSERT_TRUE(ids);
  EXPECT_THAT(*ids, ElementsAre(again - 1));
}

TEST(Tokenizer, merges_of_strings_that_are_no_tokens_are_passed_over) {
  Vocab vocab = bpe_vocab("gpt-2", {"ab"});
  vocab.merges.insert(vocab.merges.begin(), {"ab c", "x yz", "a a"});
  EXPECT_THAT(pieces(make_tokenizer(vocab), "abcaa"), ElementsAre("ab", "c", "a", "a"));
}

TEST(Tokenizer, a_byte_without_token_is_left_out_and_still_separates) {
  Vocab vocab = bpe_vocab("gpt-2", {"ab"});
  vocab.tokens['x'] = "";
  EXPECT_THAT(pieces(make_tokenizer(vocab), "axb ab"), ElementsAre("a", "b", " ", "ab"));
}

TEST(Tokenizer, special_text_is_parsed_only_where_asked) {
  Vocab vocab = bpe_vocab("gpt-2", {});
  add_token(vocab, "<s>", TokenType::kControl);
  const TokenId unknown = add_token(vocab, "<u>", TokenType::kUnknown);
  const TokenId tool = add_token(vocab, "<t>", TokenType::kUserDefined);
  const Tokenizer tokenizer = make_tokenizer(vocab);
  EXPECT_THAT(pieces(tokenizer, "a<s>b", SpecialText::kParse), ElementsAre("a", "{<s>}", "b"));
  EXPECT_THAT(pieces(tokenizer, "a<s>b"), ElementsAre("a", "<", "s", ">", "b"));
  EXPECT_THAT(pieces(tokenizer, "a<t>b"), ElementsAre("a", "<t>", "b"));
  EXPECT_THAT(*tokenizer.encode("<u><t>", SpecialText::kParse), ElementsAre(unknown, tool));
  EXPECT_EQ(tokenizer.encode("<u><t>", SpecialText::kPlain)->size(), 4u);
}

TEST(Tokenizer, longer_special_tokens_are_cut_out_first) {
  Vocab vocab = bpe_vocab("gpt-2", {});
  for (const char* token : {"ab", "bcd", "abab"}) add_token(vocab, token, TokenType::kControl);
  const Tokenizer tokenizer = make_tokenizer(vocab);
  EXPECT_THAT(pieces(tokenizer, "abcd", SpecialText::kParse), ElementsAre("a", "{bcd}"));
  EXPECT_THAT(pieces(tokenizer, "ababab", SpecialText::kParse), ElementsAre("{abab}", "{ab}"));
  EXPECT_THAT(pieces(tokenizer, "aababc", SpecialText::kParse), ElementsAre("a", "{abab}", "c"));
}

TEST(Tokenizer, plain_text_never_becomes_a_control_token) {
  // Neither as a whole word that would win over merges, nor as the result of a merge.
  Vocab vocab = bpe_vocab("llama-bpe", {"stop"});
  vocab.types.back() = TokenType::kControl;
  const Tokenizer bpe = make_tokenizer(vocab);
  EXPECT_THAT(pieces(bpe, "stop"), ElementsAre("sto", "p"));
  EXPECT_THAT(pieces(bpe, "stop", SpecialText::kParse), ElementsAre("{stop}"));

  Vocab spm = spm_vocab();
  for (const char* token : {"s", "t", "st"}) add_token(spm, token, TokenType::kNormal);
  spm.types.back() = TokenType::kControl;
  add_token(spm, "t", TokenType::kControl);
  EXPECT_THAT(pieces(make_tokenizer(spm), "st"), ElementsAre("s", "t"));
}

TEST(Tokenizer, a_long_text_comes_back_whole) {
  const Tokenizer tokenizer = make_tokenizer(bpe_vocab("smollm", {"aaaa", " word", "    "}));
  std::string text(300'000, 'a');
  for (int i = 0; i < 30'000; ++i) text += " word 7\n    ";
  text += std::string(300'000, ' ');
  const auto ids = tokenizer.encode(text, SpecialText::kPlain);
  ASSERT_TRUE(ids);
  std::string back;
  for (const TokenId id : *ids) back += tokenizer.token_bytes(id);
  EXPECT_TRUE(back == text);
}

TEST(Tokenizer, refuses_text_that_is_not_utf8) {
  const Tokenizer tokenizer = make_tokenizer(bpe_vocab("gpt-2", {}));
  const auto ids = tokenizer.encode("ab\xFF", SpecialText::kPlain);
  ASSERT_FALSE(ids);
  EXPECT_THAT(ids.error().message, HasSubstr("not UTF-8 at byte 2"));
  EXPECT_TRUE(tokenizer.encode("", SpecialText::kPlain)->empty());
}

TEST(Tokenizer, refuses_tables_that_contradict_each_other) {
  EXPECT_THAT(refusal(Vocab{}), HasSubstr("no tokens"));
  Vocab vocab = bpe_vocab("gpt-2", {});
  vocab.types.pop_back();
  EXPECT_THAT(refusal(vocab), HasSubstr("256 tokens but 255 token types"));
  vocab = spm_vocab();
  vocab.scores.pop_back();
  EXPECT_THAT(refusal(vocab), HasSubstr("257 tokens but 256 scores"));
  vocab = spm_vocab();
  vocab.scores[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refusal(vocab), HasSubstr("score of token 7"));
  vocab = bpe_vocab("gpt-2", {});
  vocab.types[3] = static_cast<TokenType>(9);
  EXPECT_THAT(refusal(vocab), HasSubstr("token 3 has the unknown type 9"));
  vocab = bpe_vocab("gpt-2", {});
  vocab.tokens[3] = "\xFF";
  EXPECT_THAT(refusal(vocab), HasSubstr("token 3 is not UTF-8"));
}

TEST(Tokenizer, refuses_ids_that_are_no_tokens) {
  for (const TokenId id : {-1, 256}) {
    Vocab vocab = bpe_vocab("gpt-2", {});
    vocab.bos = id;
    EXPECT_THAT(refusal(vocab), HasSubstr("BOS id " + std::to_string(id)));
    vocab.bos = std::nullopt;
    vocab.end_of_generation = {0, id};
    EXPECT_THAT(refusal(vocab), HasSubstr("end-of-generation id"));
  }
}

TEST(Tokenizer, refuses_merges_that_are_not_two_parts) {
  for (const char* merge : {"ab", "", " "}) {
    Vocab vocab = bpe_vocab("gpt-2", {});
    vocab.merges = {"a b", merge};
    EXPECT_THAT(refusal(vocab), HasSubstr("merge 1")) << merge;
  }
}

TEST(Tokenizer, refuses_malformed_byte_tokens) {
  Vocab vocab = spm_vocab();
  vocab.tokens[11] = "<0x0a>";
  EXPECT_THAT(refusal(vocab), HasSubstr("token 11 is of type byte"));
  vocab = spm_vocab();
  vocab.types[11] = TokenType::kNormal;
  vocab.unknown = std::nullopt;
  EXPECT_THAT(refusal(vocab), HasSubstr("neither all 256 byte tokens"));
}

}  // namespace
}  // namespace kvasir::text
