// What 8-bit activations and a bf16 cache cost in accuracy, on a passage of text.
#include <gtest/gtest.h>

#include <cmath>

#include "golden/golden.h"

namespace kvasir::golden {
namespace {

double log_sum_exp(const std::vector<float>& logits) {
  const double max = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

// Sum over tokens of p log(p / q).
double kl_divergence(const std::vector<float>& p, const std::vector<float>& q) {
  const double p_norm = log_sum_exp(p);
  const double q_norm = log_sum_exp(q);
  double kl = 0.0;
  for (size_t i = 0; i < p.size(); ++i) {
    const double log_p = p[i] - p_norm;
    kl += std::exp(log_p) * (log_p - (q[i] - q_norm));
  }
  return kl;
}

// How far one way to compute a passage is from another.
struct Distance {
  double kl = 0.0;    // mean over positions, nats
  double top1 = 0.0;  // share of positions with the same most likely token
  double perplexity_ratio = 0.0;
};

double perplexity(const Scores& scores) {
  double nll = 0.0;
  for (const double logprob : scores.next_logprobs) nll -= logprob;
  return std::exp(nll / static_cast<double>(scores.next_logprobs.size()));
}

Distance distance(const Scores& exact, const Scores& other) {
  const auto rows = static_cast<double>(exact.logits.size());
  Distance result;
  for (size_t i = 0; i < exact.logits.size(); ++i) {
    result.kl += kl_divergence(exact.logits[i], other.logits[i]) / rows;
    result.top1 += exact.argmax[i] == other.argmax[i] ? 1.0 / rows : 0.0;
  }
  result.perplexity_ratio = perplexity(other) / perplexity(exact);
  std::printf("mean KL %.5f nats, top-1 agreement %.2f %%, perplexity %+.3f %%\n", result.kl,
              result.top1 * 100, (result.perplexity_ratio - 1.0) * 100);
  return result;
}

Scores score_passage(api::EngineFlags flags) {
  flags.model = default_model();
  const boost::json::object golden = read_json("smollm2/perplexity.json");
  return score(*load(flags), numbers<TokenId>(golden.at("ids")), true);
}

TEST(NativeAccuracy, stays_close_to_f32_on_a_passage) {
  const boost::json::object golden = read_json("smollm2/perplexity.json");
  Scores exact = score_passage({.kv_dtype = "f32", .weights = "f32"});
  exact.argmax = numbers<TokenId>(golden.at("argmax"));
  for (const char* order : {"pairs", "tiles"}) {
    const Scores native = score_passage({.attention_order = order});
    const Distance apart = distance(exact, native);
    EXPECT_LE(apart.kl, 0.005) << order;
    EXPECT_GE(apart.top1, 0.97) << order;
    EXPECT_NEAR(perplexity(native) / golden.at("perplexity").to_number<double>(), 1.0, 0.01)
        << order;
  }
}

TEST(Int8KvAccuracy, stays_close_to_bf16_on_a_passage) {
  // In one order of attention, so that the figures are the same on every processor.
  const Scores bf16 = score_passage({.attention_order = "pairs"});
  const Distance int8 = distance(bf16, score_passage({.kv_dtype = "int8"}));
  EXPECT_LE(int8.kl, 0.003);
  EXPECT_GE(int8.top1, 0.97);
  EXPECT_NEAR(int8.perplexity_ratio, 1.0, 0.005);
}

TEST(NativeAccuracy, greedy_tokens_agree_while_the_choice_is_clear) {
  const boost::json::object golden = read_json("smollm2/logits.json");
  const auto llm = load({.model = default_model()}, 1);
  for (const boost::json::value& value : golden.at("prompts").as_array()) {
    const boost::json::object& prompt = value.as_object();
    SCOPED_TRACE(std::string(prompt.at("name").as_string()));
    std::vector<TokenId> expected = numbers<TokenId>(prompt.at("greedy"));
    std::vector<TokenId> got =
        greedy(*llm, numbers<TokenId>(prompt.at("ids")), static_cast<uint32_t>(expected.size()));
    const boost::json::value& gap = prompt.at("first_gap_below_0_15");
    const size_t compared = gap.is_null() ? expected.size() : gap.to_number<size_t>();
    expected.resize(compared);
    got.resize(compared);
    EXPECT_EQ(got, expected);
  }
}

}  // namespace
}  // namespace kvasir::golden
