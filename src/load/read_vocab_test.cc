#include "load/read_vocab.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "load/testing_model.h"

namespace kvasir::load {
namespace {

using gguf::testing::GgufWriter;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::OwnedFile;
using ::testing::StartsWith;

using Texts = std::vector<std::string>;

GgufWriter bpe(const Texts& tokens = {"<unk>", "<s>", "</s>", "a", "b", "ab"}) {
  return GgufWriter()
      .set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", "smollm")
      .set("tokenizer.ggml.tokens", tokens)
      .set("tokenizer.ggml.merges", Texts{"a b"});
}

GgufWriter spm() {
  return bpe()
      .set("tokenizer.ggml.model", "llama")
      .erase("tokenizer.ggml.pre")
      .erase("tokenizer.ggml.merges")
      .set("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1, -2, -3});
}

text::Vocab read_valid(const GgufWriter& writer) {
  const OwnedFile owned(writer.finish());
  EXPECT_TRUE(owned.file.has_value());
  auto vocab = read_vocab(*owned.file);
  EXPECT_TRUE(vocab.has_value()) << vocab.error().message;
  return *std::move(vocab);
}

void expect_refused(const GgufWriter& writer, const std::string& key, const std::string& problem) {
  const OwnedFile owned(writer.finish());
  ASSERT_TRUE(owned.file.has_value());
  const auto vocab = read_vocab(*owned.file);
  ASSERT_FALSE(vocab.has_value()) << key << ": " << problem;
  EXPECT_EQ(vocab.error().kind, base::ErrorKind::kBadInput);
  EXPECT_THAT(vocab.error().message,
              AllOf(StartsWith(fmt::format("test.gguf: key 'tokenizer.ggml.{}'", key)),
                    HasSubstr(problem)));
}

TEST(ReadVocab, byte_level_bpe) {
  const text::Vocab vocab =
      read_valid(bpe()
                     .set("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1, 0, 6})
                     .set("tokenizer.ggml.eos_token_id", uint32_t{2}));
  EXPECT_EQ(vocab.model, text::VocabModel::kBpe);
  EXPECT_EQ(vocab.pre_tokenizer, "smollm");
  EXPECT_THAT(vocab.tokens, ElementsAre("<unk>", "<s>", "</s>", "a", "b", "ab"));
  EXPECT_THAT(vocab.merges, ElementsAre("a b"));
  EXPECT_THAT(vocab.scores, IsEmpty());
  EXPECT_THAT(vocab.types, ElementsAre(text::TokenType::kUnknown, text::TokenType::kControl,
                                       text::TokenType::kControl, text::TokenType::kNormal,
                                       text::TokenType::kNormal, text::TokenType::kByte));
  EXPECT_EQ(vocab.bos, std::nullopt);  // the default, 11, is no token here
  EXPECT_EQ(vocab.eos, 2);
  EXPECT_EQ(vocab.unknown, std::nullopt);
  EXPECT_FALSE(vocab.add_bos);
  EXPECT_FALSE(vocab.add_eos);
  EXPECT_FALSE(vocab.add_space_prefix);
}

TEST(ReadVocab, sentence_piece_has_defaults_of_its_own) {
  const text::Vocab vocab = read_valid(spm());
  EXPECT_EQ(vocab.model, text::VocabModel::kSpm);
  EXPECT_EQ(vocab.pre_tokenizer, "");
  EXPECT_THAT(vocab.scores, ElementsAre(0, 0, 0, -1, -2, -3));
  EXPECT_THAT(vocab.types, ::testing::Each(text::TokenType::kNormal));
  EXPECT_EQ(vocab.bos, 1);
  EXPECT_EQ(vocab.eos, 2);
  EXPECT_EQ(vocab.unknown, 0);
  EXPECT_TRUE(vocab.add_bos);
  EXPECT_FALSE(vocab.add_eos);
  EXPECT_TRUE(vocab.add_space_prefix);
}

TEST(ReadVocab, flags_override_defaults) {
  const text::Vocab vocab = read_valid(spm()
                                           .set("tokenizer.ggml.add_bos_token", false)
                                           .set("tokenizer.ggml.add_eos_token", true)
                                           .set("tokenizer.ggml.add_space_prefix", false));
  EXPECT_FALSE(vocab.add_bos);
  EXPECT_TRUE(vocab.add_eos);
  EXPECT_FALSE(vocab.add_space_prefix);
}

TEST(ReadVocab, some_pre_tokenizers_imply_bos) {
  const auto with_pre = [](const char* pre) {
    return bpe().set("tokenizer.ggml.pre", pre).set("tokenizer.ggml.bos_token_id", uint32_t{1});
  };
  for (const char* pre : {"llama-bpe", "llama3", "llama-v3", "tekken", "falcon3", "pixtral"}) {
    EXPECT_TRUE(read_valid(with_pre(pre)).add_bos) << pre;
  }
  EXPECT_FALSE(read_valid(with_pre("qwen2")).add_bos);
  EXPECT_FALSE(
      read_valid(with_pre("llama-bpe").set("tokenizer.ggml.add_bos_token", false)).add_bos);
}

TEST(ReadVocab, an_id_must_be_a_token) {
  for (const char* key :
       {"bos_token_id", "eos_token_id", "unknown_token_id", "eot_token_id", "eom_token_id",
        "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id", "fim_pre_token_id",
        "fim_suf_token_id", "fim_mid_token_id", "prefix_token_id", "suffix_token_id",
        "middle_token_id"}) {
    const std::string full = fmt::format("tokenizer.ggml.{}", key);
    expect_refused(bpe().set(full, uint32_t{6}), key, "6 is not 0 to 5");
    expect_refused(bpe().set(full, int32_t{-1}), key, "non-negative integer");
  }
}

TEST(ReadVocab, a_token_that_shall_be_added_must_exist) {
  expect_refused(bpe().set("tokenizer.ggml.add_bos_token", true), "bos_token_id", "missing");
  expect_refused(bpe().set("tokenizer.ggml.add_eos_token", true), "eos_token_id", "missing");
}

TEST(ReadVocab, tables_must_exist_and_agree) {
  expect_refused(bpe().erase("tokenizer.ggml.model"), "model", "missing");
  expect_refused(bpe().set("tokenizer.ggml.model", "bert"), "model", "'bert' is not supported");
  expect_refused(bpe().erase("tokenizer.ggml.tokens"), "tokens", "missing");
  expect_refused(bpe({}), "tokens", "0 tokens are not 1 to");
  expect_refused(bpe().erase("tokenizer.ggml.merges"), "merges", "missing");
  expect_refused(spm().erase("tokenizer.ggml.scores"), "scores", "missing");
  expect_refused(spm().set("tokenizer.ggml.scores", std::vector<float>{0, 1}), "scores",
                 "2 entries for 6 tokens");
  expect_refused(bpe().set("tokenizer.ggml.token_type", std::vector<int32_t>(7, 1)), "token_type",
                 "7 entries for 6 tokens");
}

TEST(ReadVocab, tables_of_another_type_are_refused) {
  expect_refused(spm().set("tokenizer.ggml.scores", std::vector<uint8_t>(6)), "scores",
                 "an array of UINT8");
  expect_refused(bpe().set("tokenizer.ggml.token_type", std::vector<float>(6)), "token_type",
                 "an array of FLOAT32");
  expect_refused(bpe().set("tokenizer.ggml.tokens", std::vector<uint32_t>(6)), "tokens",
                 "an array of UINT32");
}

TEST(ReadVocab, entries_are_checked) {
  expect_refused(bpe().set("tokenizer.ggml.token_type", std::vector<int32_t>{1, 1, 1, 7, 1, 1}),
                 "token_type", "7 of token 3");
  expect_refused(bpe().set("tokenizer.ggml.token_type", std::vector<int32_t>{1, -1, 1, 1, 1, 1}),
                 "token_type", "-1 of token 1");
  std::vector<float> scores(6);
  scores[5] = std::numeric_limits<float>::quiet_NaN();
  expect_refused(spm().set("tokenizer.ggml.scores", scores), "scores", "not finite");
  for (const char* bad : {"", "ab", "a ", " b"}) {
    expect_refused(bpe().set("tokenizer.ggml.merges", Texts{"a b", bad}), "merges",
                   "is not two parts");
  }
}

TEST(ReadVocab, generation_ends_at_keys_and_at_known_texts) {
  const text::Vocab vocab = read_valid(
      bpe({"a", "<|im_end|>", "b", "<|endoftext|>", "c", "d", "<reponame>", "<|eot_id|>"})
          .set("tokenizer.ggml.eos_token_id", uint32_t{5})
          .set("tokenizer.ggml.eom_token_id", uint32_t{4}));
  EXPECT_THAT(vocab.end_of_generation, ElementsAre(1, 3, 4, 5, 6, 7));
}

TEST(ReadVocab, a_key_replaces_the_texts_of_fill_in_the_middle) {
  const text::Vocab vocab = read_valid(
      bpe({"a", "[PAD]", "<|fim_pad|>", "x"}).set("tokenizer.ggml.eos_token_id", uint32_t{0}));
  EXPECT_THAT(vocab.end_of_generation, ElementsAre(0, 2));  // the first text that is a token
  const text::Vocab keyed = read_valid(bpe({"a", "[PAD]", "<|fim_pad|>", "x"})
                                           .set("tokenizer.ggml.eos_token_id", uint32_t{0})
                                           .set("tokenizer.ggml.fim_pad_token_id", uint32_t{3}));
  EXPECT_THAT(keyed.end_of_generation, ElementsAre(0, 3));
}

TEST(ReadVocab, fill_in_the_middle_is_found_by_text) {
  for (const Texts& names :
       {Texts{"<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"},
        Texts{"<fim-prefix>", "<fim-suffix>", "<fim-middle>"},
        Texts{"<fim_prefix>", "<fim_suffix>", "<fim_middle>"}, Texts{"▁<PRE>", "▁<SUF>", "▁<MID>"},
        Texts{"<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"}}) {
    const text::Vocab vocab =
        read_valid(bpe({"a", names[2], names[1], names[0], "<|repo_name|>", "<|file_sep|>"}));
    EXPECT_EQ(vocab.fill.prefix, 3) << names[0];
    EXPECT_EQ(vocab.fill.suffix, 2) << names[1];
    EXPECT_EQ(vocab.fill.middle, 1) << names[2];
    EXPECT_EQ(vocab.fill.repository, 4);
    EXPECT_EQ(vocab.fill.file, 5);
    EXPECT_THAT(vocab.end_of_generation, ElementsAre(4, 5));  // the others are inside of prompts
  }
  const text::FillTokens none = read_valid(bpe()).fill;
  EXPECT_FALSE(none.prefix || none.suffix || none.middle || none.repository || none.file);
}

TEST(ReadVocab, keys_of_fill_in_the_middle_replace_texts_and_older_keys) {
  const GgufWriter older = bpe({"<PRE>", "<SUF>", "<MID>", "x", "y", "z"})
                               .set("tokenizer.ggml.prefix_token_id", uint32_t{3})
                               .set("tokenizer.ggml.suffix_token_id", uint32_t{4})
                               .set("tokenizer.ggml.middle_token_id", uint32_t{5});
  const text::FillTokens by_older = read_valid(older).fill;
  EXPECT_EQ(by_older.prefix, 3);
  EXPECT_EQ(by_older.suffix, 4);
  EXPECT_EQ(by_older.middle, 5);
  const text::FillTokens by_newer =
      read_valid(GgufWriter(older).set("tokenizer.ggml.fim_pre_token_id", uint32_t{1})).fill;
  EXPECT_EQ(by_newer.prefix, 1);
  EXPECT_EQ(by_newer.suffix, 4);
}

TEST(ReadVocab, two_families_use_an_end_text_inside_answers) {
  EXPECT_THAT(read_valid(bpe({"<|end|>", "<|return|>", "<|call|>"})).end_of_generation,
              ElementsAre(1, 2));
  EXPECT_THAT(read_valid(bpe({"<|end|>", "<|return|>", "x"})).end_of_generation, ElementsAre(0, 1));
  EXPECT_THAT(read_valid(bpe({"</s>", "<|tool_response>", "x"})).end_of_generation, ElementsAre(1));
}

TEST(ReadVocab, ids_refer_to_the_default_where_it_is_a_token) {
  const text::Vocab vocab = read_valid(bpe(Texts(12, "x")));
  EXPECT_EQ(vocab.bos, 11);
  EXPECT_EQ(vocab.eos, 11);
}

}  // namespace
}  // namespace kvasir::load
