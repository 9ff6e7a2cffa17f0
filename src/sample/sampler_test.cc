#include "sample/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include "base/fp_env.h"

namespace kvasir::sample {
namespace {

constexpr uint32_t kVocab = 300;

class SamplerTest : public testing::Test {
 protected:
  std::vector<float> random_logits(uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    std::vector<float> logits(kVocab);
    for (float& logit : logits) logit = normal(random);
    return logits;
  }
  // The token drawn at `position`: the history is that many zeros.
  TokenId choose(const std::vector<float>& logits, const SamplingParams& params, size_t position) {
    const std::vector<TokenId> tokens(position, 0);
    return *sampler.choose(logits, params, {tokens, position});
  }

  base::ScopedFpEnv fp_env;
  Sampler sampler{kVocab, *kernels::find_kernels(kernels::Isa::kReference)};
};

// Probabilities after the filters, the slow way: sort everything, normalise, cut.
std::map<TokenId, double> naive_distribution(const std::vector<float>& logits,
                                             const SamplingParams& p) {
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  });
  if (p.top_k > 0 && p.top_k < order.size()) order.resize(p.top_k);
  const double best = logits[static_cast<size_t>(order[0])];
  std::vector<double> weights;
  weights.reserve(order.size());
  for (const TokenId id : order) {
    weights.push_back(std::exp((logits[static_cast<size_t>(id)] - best) / p.temperature));
  }
  while (weights.back() < double{p.min_p}) weights.pop_back();
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  double sum = 0.0;
  std::map<TokenId, double> kept;
  for (size_t i = 0; i < weights.size() && (i == 0 || sum < total * double{p.top_p}); ++i) {
    kept[order[i]] = weights[i];
    sum += weights[i];
  }
  for (auto& [id, weight] : kept) weight /= sum;
  return kept;
}

TEST_F(SamplerTest, greedy_takes_the_largest_and_the_lowest_id_of_equals) {
  std::vector<float> logits(kVocab, 1.0F);
  EXPECT_EQ(choose(logits, {}, 0), 0);
  logits[17] = logits[170] = 2.0F;
  EXPECT_EQ(choose(logits, {}, 0), 17);
}

TEST_F(SamplerTest, drawn_frequencies_follow_the_naive_distribution) {
  const SamplingParams cases[] = {
      {.temperature = 1.0F},
      {.temperature = 0.7F, .top_k = 5},
      {.temperature = 1.5F, .top_p = 0.8F},
      {.temperature = 2.0F, .min_p = 0.05F},
      {.temperature = 1.2F, .top_k = 40, .top_p = 0.95F, .min_p = 0.01F},
  };
  const std::vector<float> logits = random_logits(7);
  constexpr int kDraws = 20000;
  for (const SamplingParams& params : cases) {
    std::map<TokenId, int> counts;
    for (int i = 0; i < kDraws; ++i) ++counts[choose(logits, params, static_cast<size_t>(i))];
    const std::map<TokenId, double> expected = naive_distribution(logits, params);
    for (const auto& [id, count] : counts) {
      EXPECT_TRUE(expected.contains(id)) << "token " << id << " was filtered out";
    }
    for (const auto& [id, probability] : expected) {
      // Five standard deviations of a binomial count.
      const double sigma = std::sqrt(kDraws * probability * (1.0 - probability));
      EXPECT_NEAR(counts[id], kDraws * probability, 5.0 * sigma + 1.0) << "token " << id;
    }
  }
}

TEST_F(SamplerTest, the_draw_depends_on_seed_and_position_only) {
  const std::vector<float> logits = random_logits(3);
  const SamplingParams a{.temperature = 1.0F, .seed = 1};
  const SamplingParams b{.temperature = 1.0F, .seed = 2};
  std::vector<TokenId> first;
  std::vector<TokenId> again;
  std::vector<TokenId> other;
  for (size_t position = 0; position < 40; ++position) {
    first.push_back(choose(logits, a, position));
    other.push_back(choose(logits, b, position));
  }
  for (size_t position = 40; position-- > 0;) again.push_back(choose(logits, a, position));
  std::reverse(again.begin(), again.end());
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

// Each adjusted logit is pinned from both sides: a rival just below loses, one just above wins.
TEST_F(SamplerTest, penalties_act_on_their_part_of_the_history) {
  const std::vector<TokenId> tokens = {10, 11, 11, 12, 12};  // prompt 10, 11; answer 11, 12, 12
  const SamplingParams params{
      .repetition_penalty = 2.0F, .presence_penalty = 0.5F, .frequency_penalty = 0.25F};
  struct Case {
    TokenId token;
    float logit;
    float adjusted;
  };
  const Case cases[] = {
      {10, 4.0F, 2.0F},                        // repetition only: divided
      {11, -4.0F, -8.0F - 0.5F - 0.25F},       // multiplied; once in the answer
      {12, 4.0F, 2.0F - 0.5F - 2.0F * 0.25F},  // twice in the answer
      {13, 3.0F, 3.0F},                        // not in the history
  };
  for (const Case& c : cases) {
    for (const float offset : {-0.01F, 0.01F}) {
      std::vector<float> logits(kVocab, -100.0F);
      logits[static_cast<size_t>(c.token)] = c.logit;
      logits[200] = c.adjusted + offset;
      EXPECT_EQ(*sampler.choose(logits, params, {tokens, 2}), offset < 0.0F ? c.token : 200);
    }
  }
}

TEST_F(SamplerTest, a_bias_can_force_and_forbid) {
  const std::vector<float> logits = random_logits(11);
  const TokenId best = choose(logits, {}, 0);
  EXPECT_EQ(choose(logits, {.logit_bias = {{42, 100.0F}}}, 0), 42);
  EXPECT_NE(choose(logits, {.logit_bias = {{best, -100.0F}}}, 0), best);
}

TEST_F(SamplerTest, logits_without_a_finite_maximum_are_refused) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  std::vector<float> logits(kVocab, nan);
  EXPECT_FALSE(sampler.choose(logits, {}, {}).has_value());
  logits.assign(kVocab, -infinity);
  EXPECT_FALSE(sampler.choose(logits, {}, {}).has_value());
  logits[5] = infinity;
  EXPECT_FALSE(sampler.choose(logits, {}, {}).has_value());
}

TEST_F(SamplerTest, some_nan_logits_break_neither_choice_nor_logprobs) {
  std::vector<float> logits = random_logits(5);
  logits[0] = logits[100] = std::numeric_limits<float>::quiet_NaN();
  for (const SamplingParams& params :
       {SamplingParams{}, SamplingParams{.temperature = 1.0F, .top_k = 7, .top_p = 0.9F}}) {
    EXPECT_TRUE(sampler.choose(logits, params, {}).has_value());
  }
  std::vector<TokenLogprob> top(5);
  EXPECT_EQ(sampler.top_logprobs(logits, top), 5U);
}

TEST_F(SamplerTest, top_logprobs_are_sorted_log_softmax_values) {
  const std::vector<float> logits = random_logits(9);
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(double{logit});
  std::vector<TokenLogprob> top(20);
  ASSERT_EQ(sampler.top_logprobs(logits, top), 20U);
  for (size_t i = 0; i < top.size(); ++i) {
    const auto id = static_cast<size_t>(top[i].token);
    EXPECT_NEAR(top[i].logprob, double{logits[id]} - std::log(sum), 1e-5);
    EXPECT_EQ(top[i].logprob, sampler.logprob_of(logits, top[i].token));
    if (i > 0) {
      EXPECT_GE(top[i - 1].logprob, top[i].logprob);
    }
  }
}

TEST(SamplingParams, values_out_of_range_are_refused_by_name) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::pair<SamplingParams, const char*> cases[] = {
      {{.temperature = nan}, "temperature"},
      {{.temperature = -1.0F}, "temperature"},
      {{.top_p = 0.0F}, "top_p"},
      {{.top_p = 1.5F}, "top_p"},
      {{.min_p = 1.0F}, "min_p"},
      {{.repetition_penalty = 0.0F}, "repetition_penalty"},
      {{.presence_penalty = 3.0F}, "presence_penalty"},
      {{.frequency_penalty = nan}, "frequency_penalty"},
      {{.logit_bias = {{-1, 0.0F}}}, "logit_bias"},
      {{.logit_bias = {{300, 0.0F}}}, "logit_bias"},
      {{.logit_bias = {{3, nan}}}, "logit_bias"},
  };
  EXPECT_TRUE(check({}, kVocab).has_value());
  for (const auto& [params, name] : cases) {
    const base::Status status = check(params, kVocab);
    ASSERT_FALSE(status.has_value()) << name;
    EXPECT_NE(status.error().message.find(name), std::string::npos) << status.error().message;
  }
}

}  // namespace
}  // namespace kvasir::sample
