#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "text/testing_vocab.h"

namespace kvasir::text {
namespace {

using testing::make_tokenizer;
using testing::spm_vocab;

const std::string kBad = "\uFFFD";

TokenId byte_token(char byte) {
  return 1 + static_cast<unsigned char>(byte);
}

std::string decode(const Tokenizer& tokenizer, std::string_view bytes) {
  std::vector<TokenId> tokens;
  for (const char byte : bytes) tokens.push_back(byte_token(byte));
  return detokenize(tokenizer, tokens);
}

// The decoder of the WHATWG encoding standard, whose bounds move with every byte.
class NaiveDecoder {
 public:
  std::string run(std::string_view bytes) {
    for (const char c : bytes) step(static_cast<unsigned char>(c));
    if (needed_ > 0) text_ += kBad;
    return text_;
  }

 private:
  void step(int byte) {
    if (needed_ > 0 && (byte < lower_ || byte > upper_)) {
      needed_ = 0;
      lower_ = 0x80;
      upper_ = 0xBF;
      text_ += kBad;
    } else if (needed_ > 0) {
      lower_ = 0x80;
      upper_ = 0xBF;
      held_ += static_cast<char>(byte);
      if (--needed_ == 0) text_ += held_;
      return;
    }
    begin(byte);
  }

  void begin(int byte) {
    held_ = static_cast<char>(byte);
    if (byte < 0x80) {
      text_ += held_;
    } else if (byte >= 0xC2 && byte <= 0xDF) {
      needed_ = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
      if (byte == 0xE0) lower_ = 0xA0;
      if (byte == 0xED) upper_ = 0x9F;
      needed_ = 2;
    } else if (byte >= 0xF0 && byte <= 0xF4) {
      if (byte == 0xF0) lower_ = 0x90;
      if (byte == 0xF4) upper_ = 0x8F;
      needed_ = 3;
    } else {
      text_ += kBad;
    }
  }

  int needed_ = 0;
  int lower_ = 0x80;
  int upper_ = 0xBF;
  std::string held_;
  std::string text_;
};

TEST(Detokenizer, replaces_maximal_subparts) {
  const Tokenizer tokenizer = make_tokenizer(spm_vocab());
  EXPECT_EQ(decode(tokenizer, "\xC0\xAF"), kBad + kBad);                        // overlong
  EXPECT_EQ(decode(tokenizer, "\xE0\x80\xAF"), kBad + kBad + kBad);             // overlong
  EXPECT_EQ(decode(tokenizer, "\xED\xA0\x80"), kBad + kBad + kBad);             // surrogate
  EXPECT_EQ(decode(tokenizer, "\xF4\x90\x80\x80"), kBad + kBad + kBad + kBad);  // too large
  EXPECT_EQ(decode(tokenizer,
                   "\xF0\x91\x92"
                   "A"),
            kBad + "A");                           // cut short
  EXPECT_EQ(decode(tokenizer, "\xE6\x97"), kBad);  // at the end
  EXPECT_EQ(decode(tokenizer, "\xE6\x97\xF0\x9F\x98\x80"), kBad + "😀");
}

TEST(Detokenizer, holds_back_unfinished_characters) {
  const Tokenizer tokenizer = make_tokenizer(spm_vocab());
  Detokenizer detokenizer(tokenizer, true);
  EXPECT_EQ(detokenizer.push(byte_token('\xF0')), "");
  EXPECT_EQ(detokenizer.push(byte_token('\x9F')), "");
  EXPECT_EQ(detokenizer.push(byte_token('\x98')), "");
  EXPECT_EQ(detokenizer.push(byte_token('\x80')), "😀");
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(detokenizer.push(byte_token('\xE6')), "");
  EXPECT_EQ(detokenizer.finish(), kBad);
  EXPECT_EQ(detokenizer.finish(), "");
}

TEST(Detokenizer, control_tokens_do_not_break_a_character) {
  Vocab vocab = spm_vocab();
  const TokenId control = testing::add_token(vocab, "<s>", TokenType::kControl);
  const Tokenizer tokenizer = make_tokenizer(vocab);
  EXPECT_EQ(detokenize(tokenizer, {byte_token('\xC3'), control, byte_token('\xA9')}), "é");
}

TEST(Detokenizer, decodes_random_bytes_like_the_naive_twin) {
  // Bytes at the edges of the ranges, so that nearly valid sequences are frequent.
  const std::string edges =
      "aZ\x7F\x80\x8F\x90\x9F\xA0\xBF\xC0\xC1\xC2\xDF\xE0\xE1\xEC\xED\xEE\xEF\xF0\xF1\xF3\xF4\xF5"
      "\xFF";
  const Tokenizer tokenizer = make_tokenizer(spm_vocab());
  for (uint64_t seed = 1; seed <= 4000; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::string bytes;
    for (uint64_t i = 0; i < 24; ++i) {
      const uint32_t bits = base::random_bits({seed, 0}, i)[0];
      bytes += bits % 8 == 0 ? static_cast<char>(bits >> 8) : edges[(bits >> 8) % edges.size()];
    }
    Detokenizer detokenizer(tokenizer, false);
    std::string text;
    for (const char byte : bytes) {
      const std::string part = detokenizer.push(byte_token(byte));
      ASSERT_EQ(NaiveDecoder().run(part), part) << "a part is not UTF-8";
      text += part;
    }
    ASSERT_EQ(text + detokenizer.finish(), NaiveDecoder().run(bytes));
  }
}

}  // namespace
}  // namespace kvasir::text
