// Logits and greedy tokens against the reference data, in full f32.
#include <gtest/gtest.h>

#include <cmath>

#include "golden/golden.h"

namespace kvasir::golden {
namespace {

api::EngineFlags f32_flags(const std::string& model) {
  return {.model = model, .kv_dtype = "f32", .weights = "f32"};
}

class TinyModel : public testing::TestWithParam<const char*> {};

TEST_P(TinyModel, logits_and_greedy_tokens_agree_with_the_reference) {
  const std::string name = GetParam();
  const boost::json::object golden = read_json("tiny/" + name + ".json");
  const auto llm = load(f32_flags(path_of("tiny/" + name + ".gguf")));
  const auto input = numbers<TokenId>(golden.at("input_ids"));

  const Scores scores = score(*llm, input, /*keep_logits=*/true);
  EXPECT_EQ(scores.argmax, numbers<TokenId>(golden.at("argmax")));
  const auto positions = numbers<size_t>(golden.at("logits_positions"));
  for (size_t i = 0; i < positions.size(); ++i) {
    const auto expected = numbers<float>(golden.at("logits").as_array()[i]);
    const std::vector<float>& logits = scores.logits.at(positions[i]);
    ASSERT_EQ(logits.size(), expected.size());
    for (size_t id = 0; id < expected.size(); ++id) {
      ASSERT_NEAR(logits[id], expected[id], 1e-3) << "position " << positions[i] << " id " << id;
    }
  }
  EXPECT_EQ(greedy(*llm, input, 32), numbers<TokenId>(golden.at("greedy")));
}

INSTANTIATE_TEST_SUITE_P(Golden, TinyModel,
                         testing::Values("llama", "llama-f16", "llama-bf16", "llama-q8_0",
                                         "llama-q4_0", "llama-q4_1", "llama-q5_0", "llama-q5_1",
                                         "llama-mha-untied", "llama31", "llama256-q4_0",
                                         "llama256-q8_0"),
                         [](const auto& param) {
                           std::string name = param.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(SmolLm2, f32_logits_and_greedy_tokens_agree_with_the_reference) {
  const boost::json::object golden = read_json("smollm2/logits.json");
  const auto llm = load(f32_flags(default_model()));
  for (const boost::json::value& value : golden.at("prompts").as_array()) {
    const boost::json::object& prompt = value.as_object();
    SCOPED_TRACE(std::string(prompt.at("name").as_string()));
    const auto ids = numbers<TokenId>(prompt.at("ids"));
    const Scores scores = score(*llm, ids, /*keep_logits=*/true);
    for (const boost::json::value& pair : prompt.at("top50").as_array()) {
      const auto id = pair.as_array()[0].to_number<size_t>();
      EXPECT_NEAR(scores.logits.back()[id], pair.as_array()[1].to_number<float>(), 5e-3);
    }
    EXPECT_EQ(greedy(*llm, ids, 64), numbers<TokenId>(prompt.at("greedy")));
  }
}

TEST(SmolLm2, f32_logprobs_of_a_passage_agree_with_the_reference) {
  const boost::json::object golden = read_json("smollm2/perplexity.json");
  const auto llm = load(f32_flags(default_model()));
  const Scores scores = score(*llm, numbers<TokenId>(golden.at("ids")), /*keep_logits=*/false);
  const boost::json::array& expected = golden.at("token_logprobs").as_array();
  ASSERT_EQ(scores.next_logprobs.size() + 1, expected.size());
  double nll = 0.0;
  for (size_t i = 0; i < scores.next_logprobs.size(); ++i) {
    EXPECT_NEAR(scores.next_logprobs[i], expected[i + 1].to_number<double>(), 5e-3) << i;
    nll -= scores.next_logprobs[i] / static_cast<double>(scores.next_logprobs.size());
  }
  EXPECT_NEAR(std::exp(nll) / golden.at("perplexity").to_number<double>(), 1.0, 1e-4);
}

}  // namespace
}  // namespace kvasir::golden
