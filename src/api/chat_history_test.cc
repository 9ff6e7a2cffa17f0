#include "api/chat_history.h"

#include <gtest/gtest.h>

namespace kvasir::api {
namespace {

// "a" "b" "c" "ab" "bc" "abc"; 6 and 7 are control tokens.
constexpr std::string_view kBytes[] = {"a", "b", "c", "ab", "bc", "abc", "", ""};

std::vector<TokenId> continued(const std::vector<TokenId>& cached,
                               const std::vector<TokenId>& rendered) {
  return continue_tokens(cached, rendered,
                         [](TokenId token) { return kBytes[static_cast<size_t>(token)]; });
}

TEST(ContinueTokens, without_a_cache_the_rendering_stands) {
  EXPECT_EQ(continued({}, {6, 5, 7}), (std::vector<TokenId>{6, 5, 7}));
}

TEST(ContinueTokens, the_same_text_keeps_the_cached_spelling) {
  EXPECT_EQ(continued({6, 0, 1, 2, 7}, {6, 5, 7, 6, 3}),
            (std::vector<TokenId>{6, 0, 1, 2, 7, 6, 3}));
  EXPECT_EQ(continued({3, 2}, {0, 4, 1}), (std::vector<TokenId>{3, 2, 1}));
}

TEST(ContinueTokens, other_text_ends_what_is_kept) {
  EXPECT_EQ(continued({6, 3, 0, 0}, {6, 0, 1, 2, 7}), (std::vector<TokenId>{6, 3, 2, 7}));
}

TEST(ContinueTokens, a_token_that_reaches_beyond_the_common_text_is_not_split) {
  EXPECT_EQ(continued({6, 3}, {6, 5, 7}), (std::vector<TokenId>{6, 5, 7}));
  EXPECT_EQ(continued({6, 5}, {6, 3}), (std::vector<TokenId>{6, 3}));
}

TEST(ContinueTokens, a_control_token_equals_only_itself) {
  EXPECT_EQ(continued({6, 0}, {7, 0}), (std::vector<TokenId>{7, 0}));
  EXPECT_EQ(continued({0, 6, 1}, {3, 6}), (std::vector<TokenId>{3, 6}));
}

}  // namespace
}  // namespace kvasir::api
