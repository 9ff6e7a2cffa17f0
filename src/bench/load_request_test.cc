#include "bench/load_request.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <set>

namespace kvasir::bench {
namespace {

TEST(ServerUrl, names_a_host_and_a_port) {
  const auto plain = parse_server_url("http://127.0.0.1:8080").value();
  EXPECT_EQ(plain.host, "127.0.0.1");
  EXPECT_EQ(plain.port, 8080);
  EXPECT_EQ(plain.authority, "127.0.0.1:8080");
  const auto bare = parse_server_url("http://localhost/").value();
  EXPECT_EQ(bare.host, "localhost");
  EXPECT_EQ(bare.port, 80);
  const auto v6 = parse_server_url("http://[::1]:9000/").value();
  EXPECT_EQ(v6.host, "::1");
  EXPECT_EQ(v6.port, 9000);
  EXPECT_EQ(v6.authority, "[::1]:9000");
}

TEST(ServerUrl, anything_else_is_bad_input) {
  for (const char* url :
       {"", "127.0.0.1:8080", "https://a", "http://", "http://:80", "http://a:", "http://a:0",
        "http://a:65536", "http://a:8x", "http://a:-1", "http://a/v1", "http://[::1", "http://[]:1",
        "http://[::1]9", "http://u@a", "http://a b", "http://a?x"}) {
    const auto result = parse_server_url(url);
    ASSERT_FALSE(result.has_value()) << url;
    EXPECT_EQ(result.error().kind, base::ErrorKind::kBadInput) << url;
  }
}

TEST(LoadPrompt, shares_its_prefix_and_nothing_else) {
  const LoadOptions options{.tokens = 40, .shared_prefix = 10, .seed = 3};
  const auto a = load_prompt(options, 0);
  const auto b = load_prompt(options, 1);
  ASSERT_EQ(a.size(), 40U);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 10, b.begin()));
  EXPECT_NE(std::vector(a.begin() + 10, a.end()), std::vector(b.begin() + 10, b.end()));
  EXPECT_EQ(load_prompt(options, 1), b);
  EXPECT_NE(load_prompt({.tokens = 40, .shared_prefix = 10, .seed = 4}, 1), b);
}

TEST(LoadPrompt, ids_are_ordinary_ones_of_every_common_vocabulary) {
  const auto tokens = load_prompt({.tokens = 5000}, 7);
  EXPECT_GE(*std::ranges::min_element(tokens), 100);
  EXPECT_LT(*std::ranges::max_element(tokens), 30'000);
  EXPECT_GT(std::set(tokens.begin(), tokens.end()).size(), 4000U);
}

boost::json::object body_of(const LoadOptions& options, uint64_t index) {
  return boost::json::parse(make_load_request(options, index).body).as_object();
}

TEST(LoadRequest, asks_for_a_stream_of_fixed_length) {
  const LoadOptions options{.tokens = 3, .generate = 9};
  const auto body = body_of(options, 5);
  EXPECT_EQ(body.at("prompt").as_array().size(), 3U);
  EXPECT_EQ(body.at("max_tokens"), 9);
  EXPECT_EQ(body.at("temperature"), 0.0);
  EXPECT_EQ(body.at("ignore_eos"), true);
  EXPECT_EQ(body.at("stream"), true);
  EXPECT_EQ(body.at("stream_options").at("include_usage"), true);
  EXPECT_FALSE(body.contains("model"));
  EXPECT_FALSE(body.contains("seed"));
  EXPECT_FALSE(body.contains("return_token_ids"));
}

TEST(LoadRequest, mixed_ones_sample_every_other_time_with_seeds_of_their_own) {
  const LoadOptions options{.mixed = true};
  EXPECT_EQ(body_of(options, 4).at("temperature"), 0.0);
  EXPECT_EQ(body_of(options, 5).at("temperature"), 0.8);
  EXPECT_NE(body_of(options, 5).at("seed"), body_of(options, 7).at("seed"));
}

TEST(LoadRequest, a_flooding_tenant_sends_as_many_times_more_as_asked) {
  const LoadOptions options{.api_keys = {"f", "a", "b", "c"}, .flood = 7};
  constexpr uint64_t kRequests = 20'000;
  std::vector<uint64_t> counts(4);
  for (uint64_t i = 0; i < kRequests; ++i) ++counts[make_load_request(options, i).key];
  EXPECT_NEAR(static_cast<double>(counts[0]) / kRequests, 0.7, 0.02);
  for (size_t key = 1; key < 4; ++key) {
    EXPECT_NEAR(static_cast<double>(counts[key]) / kRequests, 0.1, 0.01) << key;
  }
}

TEST(PoissonArrivals, have_the_rate_asked_for_and_gaps_as_uneven_as_chance) {
  PoissonArrivals arrivals(50.0, 11);
  constexpr int kArrivals = 20'000;
  uint64_t last_us = 0;
  double squares = 0.0;
  for (int i = 0; i < kArrivals; ++i) {
    const uint64_t next_us = arrivals.next_us();
    ASSERT_GE(next_us, last_us);
    const double gap_s = static_cast<double>(next_us - last_us) / 1e6;
    squares += gap_s * gap_s;
    last_us = next_us;
  }
  const double mean_s = static_cast<double>(last_us) / 1e6 / kArrivals;
  EXPECT_NEAR(mean_s, 0.02, 0.0006);
  EXPECT_NEAR(squares / kArrivals, 2 * mean_s * mean_s, 0.1 * mean_s * mean_s);
}

TEST(DrawSamples, are_different_and_from_everywhere) {
  const auto samples = draw_samples(1000, 50, 5);
  ASSERT_EQ(samples.size(), 50U);
  EXPECT_TRUE(std::ranges::is_sorted(samples));
  EXPECT_EQ(std::set(samples.begin(), samples.end()).size(), 50U);
  EXPECT_LT(samples.front(), 20U);
  EXPECT_GE(samples.back(), 980U);
  EXPECT_LT(samples.back(), 1000U);
  EXPECT_EQ(draw_samples(3, 50, 5), (std::vector<size_t>{0, 1, 2}));
}

}  // namespace
}  // namespace kvasir::bench
