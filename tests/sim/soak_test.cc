// Short soaks of every family, and proof that the soak's own oracle is right.
#include "sim/soak.h"

#include <gtest/gtest.h>

#include "sim/soak_oracle.h"

namespace kvasir::sim {
namespace {

#ifdef KVASIR_SOAK_SHORT
constexpr uint64_t kTokens = 20'000;  // a sanitizer is some 20 times slower
#else
constexpr uint64_t kTokens = 300'000;
#endif

void expect_clean(const SoakOptions& options) {
  SCOPED_TRACE(testing::Message() << "seed " << options.seed << ", family "
                                  << soak_family_name(options.family));
  const SoakReport report = run_soak(options);
  EXPECT_FALSE(report.failure.has_value()) << *report.failure;
  EXPECT_GE(report.figures.tokens, options.tokens);
  EXPECT_GT(report.figures.tokens_hit, options.tokens / 10);
  EXPECT_GT(report.figures.evictions, 0U);
  EXPECT_GT(report.figures.copies, 0U);
  EXPECT_GT(report.figures.dedups, 0U);
  EXPECT_GT(report.figures.promises, 0U);
}

SoakOptions family_of(SoakFamily family, uint64_t seed) {
  return {.seed = seed, .tokens = kTokens, .tokens_per_setup = 10'000, .family = family};
}

TEST(Soak, any_setup_gives_the_oracles_text) {
  expect_clean(family_of(SoakFamily::kAny, 1));
}
TEST(Soak, one_group_gives_the_oracles_text) {
  expect_clean(family_of(SoakFamily::kOneGroup, 10'001));
}
TEST(Soak, full_and_window_groups_give_the_oracles_text) {
  expect_clean(family_of(SoakFamily::kFullAndWindow, 20'001));
}
TEST(Soak, a_window_alone_gives_the_oracles_text) {
  expect_clean(family_of(SoakFamily::kWindowOnly, 30'001));
}

TEST(Soak, a_decoder_that_reads_an_encoder_gives_the_oracles_text) {
  expect_clean(family_of(SoakFamily::kCross, 50'001));
}

TEST(Soak, a_seed_gives_the_same_run_again) {
  const SoakOptions options{.seed = 7, .tokens = 30'000, .tokens_per_setup = 10'000};
  const SoakFigures first = run_soak(options).figures;
  const SoakFigures second = run_soak(options).figures;
  EXPECT_EQ(first.steps, second.steps);
  EXPECT_EQ(first.requests, second.requests);
  EXPECT_EQ(first.tokens_hit, second.tokens_hit);
  EXPECT_EQ(first.evictions, second.evictions);
}

TEST(SoakOracle, equals_the_fake_models_oracle_at_every_position) {
  const kv::GroupShape full{
      .layers = 1, .kv_heads = 1, .head_dim = 16, .dtype = quant::KvDtype::kF32};
  kv::GroupShape window = full;
  window.kind = kv::GroupKind::kSlidingWindow;
  window.window_tokens = 7;
  constexpr uint32_t kVocab = 11;
  for (const std::vector<kv::GroupShape>& groups :
       {std::vector{full}, {window}, {full, window}, {window, full}}) {
    const FakeModel model(kVocab, groups);
    SoakOracle oracle(kVocab, groups);
    std::vector<TokenId> tokens;
    std::vector<float> expected(kVocab);
    SoakRandom random(3);
    for (int i = 0; i < 200; ++i) {
      if (i == 100) {
        tokens.resize(40);
        oracle.truncate(40);
      }
      tokens.push_back(static_cast<TokenId>(random.below(kVocab)));
      oracle.add(tokens.back());
      model.oracle_logits(tokens, expected);
      const std::span<const float> logits = oracle.logits();
      ASSERT_EQ(std::vector(logits.begin(), logits.end()), expected) << "token " << i;
    }
  }
}

}  // namespace
}  // namespace kvasir::sim
