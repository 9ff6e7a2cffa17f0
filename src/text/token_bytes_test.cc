#include "text/token_bytes.h"

#include <gtest/gtest.h>

namespace kvasir::text {
namespace {

TEST(TokenBytes, bpe_letters_become_bytes) {
  const auto bytes = [](std::string_view token) {
    return bytes_of_token(VocabModel::kBpe, TokenType::kNormal, token);
  };
  EXPECT_EQ(bytes("\u0120hello"), " hello");
  EXPECT_EQ(bytes("\u010A\u0109"), "\n\t");
  EXPECT_EQ(bytes("\u0100\u0143"), std::string("\0\xAD", 2));
  EXPECT_EQ(bytes("\u00C3\u00A9"), "\xC3\xA9");  // the two bytes of U+00E9
}

TEST(TokenBytes, bpe_letters_outside_the_alphabet_stand_for_themselves) {
  EXPECT_EQ(bytes_of_token(VocabModel::kBpe, TokenType::kNormal, "a\u65E5\u0144 "),
            "a\u65E5\u0144 ");
}

TEST(TokenBytes, spm_marks_become_spaces) {
  EXPECT_EQ(bytes_of_token(VocabModel::kSpm, TokenType::kNormal, "\u2581a\u2581\u65E5"),
            " a \u65E5");
}

TEST(TokenBytes, byte_tokens_have_one_strict_form) {
  const auto bytes = [](std::string_view token) {
    return bytes_of_token(VocabModel::kSpm, TokenType::kByte, token);
  };
  EXPECT_EQ(bytes("<0x0A>"), "\n");
  EXPECT_EQ(bytes("<0x00>"), std::string(1, '\0'));
  EXPECT_EQ(bytes("<0xFF>"), "\xFF");
  for (const char* other : {"<0xA>", "<0x0a>", "<0x0G>", "<0x0A", "<0x0A>>", "0x0A", ""}) {
    EXPECT_EQ(bytes(other), other);
  }
}

TEST(TokenBytes, special_tokens_are_silent_unless_user_defined) {
  for (const VocabModel model : {VocabModel::kBpe, VocabModel::kSpm}) {
    EXPECT_EQ(bytes_of_token(model, TokenType::kControl, "<s>"), "");
    EXPECT_EQ(bytes_of_token(model, TokenType::kUnknown, "<unk>"), "");
    EXPECT_EQ(bytes_of_token(model, TokenType::kUnused, "[PAD1]"), "");
    EXPECT_EQ(bytes_of_token(model, TokenType::kUserDefined, "<tool>\u0120"), "<tool>\u0120");
  }
}

}  // namespace
}  // namespace kvasir::text
