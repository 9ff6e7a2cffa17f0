#include "serve/utf8.h"

#include <gtest/gtest.h>

namespace kvasir::serve {
namespace {

TEST(Utf8, accepts_the_edges_of_every_length) {
  for (const char* text :
       {"", "a", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_EQ(broken_utf8_at(text), std::nullopt) << text;
  }
}

TEST(Utf8, finds_where_a_text_breaks) {
  const struct {
    const char* text;
    size_t at;
  } cases[] = {
      {"\x80", 0},              // continues nothing
      {"a\xC0\x80", 1},         // overlong
      {"a\xC1\xBF", 1},         // overlong
      {"ab\xE0\x9F\xBF", 2},    // overlong
      {"\xF0\x8F\xBF\xBF", 0},  // overlong
      {"\xED\xA0\x80", 0},      // a surrogate
      {"\xF4\x90\x80\x80", 0},  // above U+10FFFF
      {"\xF5\x80\x80\x80", 0},  // above U+10FFFF
      {"\xFF", 0},              // never a byte of UTF-8
      {"\xC3\xA9\xE2\x82", 2},  // ends too early
      {"\xE2\x82z", 0},         // interrupted
      {"\xF0\x9F\x98z", 0},     // interrupted
  };
  for (const auto& c : cases) EXPECT_EQ(broken_utf8_at(c.text), c.at) << c.text;
}

TEST(Utf8, counts_characters) {
  EXPECT_EQ(count_characters(""), 0U);
  EXPECT_EQ(count_characters("a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"), 4U);
}

TEST(Utf8, mends_what_is_broken_and_nothing_else) {
  EXPECT_EQ(replace_broken("a\xC3\xA9"), "a\xC3\xA9");
  EXPECT_EQ(replace_broken("a\x80z"), "a\xEF\xBF\xBDz");
  EXPECT_EQ(replace_broken("\xE2\x82"), "\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace kvasir::serve
