#include "api/stop_matcher.h"

#include <gtest/gtest.h>

#include <random>

namespace kvasir::api {
namespace {

TEST(StopMatcher, shows_everything_when_there_is_nothing_to_stop_at) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, never_shows_the_beginning_of_a_stop_string_that_completes_later) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("one E"), "one ");
  EXPECT_EQ(matcher.push("N"), "");
  EXPECT_EQ(matcher.push("D two"), "");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("three"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, releases_what_turned_out_not_to_be_a_stop_string) {
  StopMatcher matcher({"END"});
  EXPECT_EQ(matcher.push("EN"), "");
  EXPECT_EQ(matcher.push("EMY"), "ENEMY");
  EXPECT_EQ(matcher.push(" EN"), " ");
  EXPECT_EQ(matcher.finish(), "EN");
  EXPECT_FALSE(matcher.matched());
}

// Cuts `text` where the first stop string is complete: character by character, the slow way.
std::string naive_cut(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return text.substr(0, end - longest);
  }
  return text;
}

TEST(StopMatcher, any_cut_of_a_text_gives_the_text_before_the_first_complete_match) {
  constexpr uint32_t kSeed = 5;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  for (int round = 0; round < 3000; ++round) {
    const auto word = [&](size_t size) {
      std::string text;
      while (text.size() < size) text.push_back(static_cast<char>('a' + random() % 2));
      return text;
    };
    const std::string text = word(random() % 30);
    const std::vector<std::string> stops = {word(1 + random() % 5), word(1 + random() % 5)};
    StopMatcher matcher(stops);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 4;
      shown += matcher.push(text.substr(at, size));
      at += size;
    }
    shown += matcher.finish();
    ASSERT_EQ(shown, naive_cut(text, stops))
        << "text " << text << " stops " << stops[0] << " " << stops[1];
  }
}

}  // namespace
}  // namespace kvasir::api
