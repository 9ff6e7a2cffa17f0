// Encoder-decoder models on the fake model: what an encoder computes is computed once for each
// input, read by every decoder that asks about it, and evicted when decoders need the room.
#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/fp_env.h"
#include "engine/engine.h"
#include "sim/fake_model.h"

namespace kvasir {
namespace {

constexpr uint32_t kVocab = 64;
constexpr kv::GroupShape kDecoder{
    .layers = 1, .kv_heads = 1, .head_dim = 16, .dtype = quant::KvDtype::kF32};
constexpr kv::GroupShape kCross{.layers = 3,
                                .kv_heads = 1,
                                .head_dim = 16,
                                .dtype = quant::KvDtype::kF32,
                                .kind = kv::GroupKind::kCross};

class EncoderTest : public testing::Test {
 protected:
  // Slabs of 6 KiB: three decoder blocks or one encoder block.
  void start(uint32_t slabs, uint32_t sequences_max) {
    const kv::BlockLayout cross(kCross, 16);
    const kv::CacheOptions cache{.groups = {kDecoder, kCross},
                                 .block_tokens = 16,
                                 .budget_bytes = slabs * cross.block_bytes(),
                                 .sequences_max = sequences_max,
                                 .sequence_tokens_max = 128,
                                 .slab_unit_bytes = cross.block_bytes(),
                                 .encoder_tokens_max = 64,
                                 .encoder_inputs_max = 6,
                                 .verify = true};
    auto created =
        engine::Engine::create({.model = &model,
                                .kernels = kernels::find_kernels(kernels::Isa::kReference),
                                .clock = &clock},
                               cache,
                               {.requests_max = 64,
                                .sequences_max = sequences_max,
                                .prefill_chunk = 20,
                                .logit_rows_max = sequences_max});
    ASSERT_TRUE(created.has_value()) << created.error().message;
    engine = *std::move(created);
  }

  std::vector<TokenId> oracle(std::vector<TokenId> tokens, const std::vector<TokenId>& input,
                              uint32_t count) const {
    const size_t prompt = tokens.size();
    std::vector<float> logits(kVocab);
    for (uint32_t i = 0; i < count; ++i) {
      model.oracle_logits(tokens, logits, input);
      tokens.push_back(static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin()));
    }
    return {tokens.begin() + static_cast<ptrdiff_t>(prompt), tokens.end()};
  }

  std::map<SequenceId, std::vector<TokenId>> run_all() {
    std::map<SequenceId, std::vector<TokenId>> answers;
    while (!engine->idle()) {
      for (const engine::Event& event : engine->step()) {
        if (event.kind == engine::Event::Kind::kToken) {
          answers[event.sequence].push_back(event.token);
        }
      }
      engine->check_invariants();
    }
    return answers;
  }

  std::vector<TokenId> random_tokens(uint32_t count) {
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
    return tokens;
  }

  uint32_t below(uint32_t end) { return static_cast<uint32_t>(random() % end); }

  base::ScopedFpEnv fp_env;
  sim::FakeModel model{kVocab, {kDecoder, kCross}};
  base::SteadyClock clock;
  std::mt19937 random{1};
  std::unique_ptr<engine::Engine> engine;
};

TEST_F(EncoderTest, one_input_is_encoded_once_for_all_who_ask_about_it) {
  start(40, 4);
  const std::vector<TokenId> input = random_tokens(50);
  std::map<SequenceId, std::vector<TokenId>> expected;
  for (int round = 0; round < 3; ++round) {
    for (uint32_t i = 0; i < 4; ++i) {
      const std::vector<TokenId> prompt = random_tokens(3 + i * 7);
      const engine::Request request{.tokens = prompt, .max_tokens = 12, .encoder_tokens = input};
      ASSERT_TRUE(engine->check(request).has_value());
      expected[engine->submit(request)] = oracle(prompt, input, 12);
    }
    for (const auto& [id, answer] : run_all()) EXPECT_EQ(answer, expected[id]);
  }
  EXPECT_EQ(model.inputs_encoded(), 1U);
  EXPECT_EQ(engine->stats().cache.encoder_inputs_shared, 11U);
}

TEST_F(EncoderTest, the_same_prompt_about_another_input_shares_nothing) {
  start(40, 2);
  const std::vector<TokenId> prompt = random_tokens(40);
  for (int i = 0; i < 2; ++i) {
    const std::vector<TokenId> input = random_tokens(20);
    const engine::Request request{.tokens = prompt, .max_tokens = 5, .encoder_tokens = input};
    const SequenceId id = engine->submit(request);
    EXPECT_EQ(run_all()[id], oracle(prompt, input, 5));
  }
  EXPECT_EQ(engine->stats().cache.tokens_hit, 0U);
  EXPECT_EQ(model.inputs_encoded(), 2U);
}

TEST_F(EncoderTest, another_tenant_shares_no_input) {
  start(40, 2);
  const std::vector<TokenId> input = random_tokens(20);
  for (uint8_t tenant = 0; tenant < 2; ++tenant) {
    engine::Request request{.tokens = {1, 2, 3}, .max_tokens = 5, .encoder_tokens = input};
    request.domain.tenant[0] = tenant;
    const SequenceId id = engine->submit(request);
    EXPECT_EQ(run_all()[id], oracle({1, 2, 3}, input, 5));
  }
  EXPECT_EQ(model.inputs_encoded(), 2U);
}

TEST_F(EncoderTest, random_loads_in_little_memory_give_the_oracles_text) {
  uint64_t evicted = 0;
  uint64_t preemptions = 0;
  for (uint32_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    random.seed(seed);
    start(8 + seed % 12, 1 + seed % 5);
    std::vector<std::vector<TokenId>> inputs;
    for (int i = 0; i < 5; ++i) inputs.push_back(random_tokens(1 + below(60)));
    std::map<SequenceId, std::vector<TokenId>> expected;
    for (int i = 0; i < 25; ++i) {
      const std::vector<TokenId> prompt = random_tokens(1 + below(60));
      const std::vector<TokenId>& input = inputs[random() % inputs.size()];
      const auto count = 1 + below(30);
      const engine::Request request{.tokens = prompt, .max_tokens = count, .encoder_tokens = input};
      ASSERT_TRUE(engine->check(request).has_value());
      expected[engine->submit(request)] = oracle(prompt, input, count);
    }
    EXPECT_EQ(run_all(), expected);
    const kv::CacheStats stats = engine->stats().cache;
    evicted += stats.groups[1].evicted;
    preemptions += engine->stats().scheduler.preemptions;
    EXPECT_EQ(stats.groups[0].blocks.referenced() + stats.groups[1].blocks.referenced(), 0U);
    EXPECT_TRUE(engine->reset_cache().done);
    engine->check_invariants();
  }
  EXPECT_GT(evicted, 0U);
  EXPECT_GT(preemptions, 0U);
}

TEST_F(EncoderTest, an_input_that_is_too_long_is_refused_in_one_line) {
  start(20, 1);
  const engine::Request request{
      .tokens = {1}, .max_tokens = 1, .encoder_tokens = random_tokens(65)};
  const base::Status status = engine->check(request);
  ASSERT_FALSE(status.has_value());
  EXPECT_NE(status.error().message.find("at most 64"), std::string::npos);
}

}  // namespace
}  // namespace kvasir
