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

TEST(NativeAccuracy, stays_close_to_f32_on_a_passage) {
  const boost::json::object golden = read_json("smollm2/perplexity.json");
  const auto ids = numbers<TokenId>(golden.at("ids"));
  const auto golden_argmax = numbers<TokenId>(golden.at("argmax"));
  const Scores exact =
      score(*load({.model = default_model(), .kv_dtype = "f32", .weights = "f32"}), ids, true);
  const Scores native = score(*load({.model = default_model()}), ids, true);

  double kl = 0.0;
  size_t agree = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    kl += kl_divergence(exact.logits[i], native.logits[i]) / static_cast<double>(ids.size());
    agree += native.argmax[i] == golden_argmax[i] ? 1 : 0;
  }
  double nll = 0.0;
  for (const double logprob : native.next_logprobs) {
    nll -= logprob / static_cast<double>(native.next_logprobs.size());
  }
  const double top1 = static_cast<double>(agree) / static_cast<double>(ids.size());
  const double ratio = std::exp(nll) / golden.at("perplexity").to_number<double>();
  std::printf("mean KL %.5f nats, top-1 agreement %.2f %%, perplexity %+.3f %%\n", kl, top1 * 100,
              (ratio - 1.0) * 100);
  EXPECT_LE(kl, 0.005);
  EXPECT_GE(top1, 0.97);
  EXPECT_NEAR(ratio, 1.0, 0.01);
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
