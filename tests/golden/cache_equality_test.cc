// The equality laws of the cache, on real models: whatever is shared, copied, forked, evicted or
// preempted, not a bit of any logit changes. Freed memory is poisoned and deduplicated blocks are
// compared byte by byte on the way.
#include <gtest/gtest.h>

#include <random>

#include "golden/golden.h"

namespace kvasir::golden {
namespace {

constexpr uint32_t kBlock = 16;
constexpr uint32_t kAnswer = 6;

struct Case {
  const char* name;
  const char* model;  // nullptr: the default model
  const char* kv_dtype;
};

class CacheEquality : public testing::TestWithParam<Case> {
 protected:
  std::unique_ptr<api::Llm> load_cache(const std::string& kv_memory, uint32_t sequences = 8) const {
    const Case& c = GetParam();
    base::Result<api::EngineOptions> options = api::parse_options(
        {.model = c.model == nullptr ? default_model() : path_of(std::string("tiny/") + c.model),
         .kv_dtype = c.kv_dtype,
         .kv_memory = kv_memory,
         .block_tokens = kBlock,
         .prefill_chunk = "48",
         .max_sequences = sequences,
         .context = 256});
    EXPECT_TRUE(options.has_value()) << options.error().message;
    options->kv_verify = true;
    options->requests_max = 64;
    auto llm = api::Llm::load(*options, {});
    EXPECT_TRUE(llm.has_value()) << llm.error().message;
    return *std::move(llm);
  }

  std::vector<TokenId> prompt(uint32_t seed, uint32_t count) const {
    std::mt19937 random(seed);
    std::vector<TokenId> tokens(count);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 280);
    return tokens;
  }

  static api::GenerateRequest request(std::vector<TokenId> tokens, uint32_t count = kAnswer) {
    return {.prompt = std::move(tokens),
            .max_tokens = count,
            .ignore_eos = true,
            .digest_logits = true};
  }

  static std::vector<api::Completion> run(api::Llm& llm,
                                          const std::vector<api::GenerateRequest>& requests) {
    auto completions = llm.generate(requests, {});
    EXPECT_TRUE(completions.has_value()) << completions.error().message;
    llm.engine().check_invariants();
    return *std::move(completions);
  }

  static api::Completion run_one(api::Llm& llm, const std::vector<TokenId>& tokens,
                                 uint32_t count = kAnswer) {
    return run(llm, {request(tokens, count)})[0];
  }

  // What a cache that has never seen anything answers.
  api::Completion cold(const std::vector<TokenId>& tokens, uint32_t count = kAnswer) const {
    const auto llm = load_cache("64MiB");
    return run_one(*llm, tokens, count);
  }

  static void expect_same(const api::Completion& got, const api::Completion& expected,
                          const std::string& what) {
    EXPECT_EQ(got.tokens, expected.tokens) << what;
    EXPECT_EQ(base::to_hex(*got.stats.logits_digest), base::to_hex(*expected.stats.logits_digest))
        << what;
  }

  // Memory for so many blocks.
  std::string blocks(uint32_t count) const {
    const auto llm = load_cache("64MiB");
    return std::to_string(uint64_t{count} * llm->stats().cache.groups[0].block_bytes);
  }
};

TEST_P(CacheEquality, hits_of_every_kind_change_no_bit) {
  const std::vector<TokenId> tokens = prompt(1, 100);
  const api::Completion expected = cold(tokens);
  struct Hit {
    const char* name;
    uint32_t warm_prompt;  // leading tokens of the prompt that another request has computed
    uint32_t warm_answer;
    uint32_t cached;
  };
  const Hit hits[] = {{"at 0", 0, 0, 0},
                      {"mid-block", 39, 1, 39},
                      {"block edge", 64, 1, 64},
                      {"all but one", 100, 1, 99},
                      {"one token", 1, 1, 1}};
  for (const Hit& hit : hits) {
    const auto llm = load_cache("64MiB");
    if (hit.warm_prompt > 0) {
      run_one(*llm, {tokens.begin(), tokens.begin() + hit.warm_prompt}, hit.warm_answer);
    }
    const api::Completion got = run_one(*llm, tokens);
    EXPECT_EQ(got.stats.tokens_cached, hit.cached) << hit.name;
    EXPECT_EQ(got.stats.prompt_tokens_computed, 100 - hit.cached) << hit.name;
    expect_same(got, expected, hit.name);
  }
}

TEST_P(CacheEquality, a_next_turn_reuses_the_answer_and_its_short_last_block) {
  const std::vector<TokenId> first = prompt(2, 45);
  const auto llm = load_cache("64MiB");
  const api::Completion answer = run_one(*llm, first, 9);
  std::vector<TokenId> second = first;
  second.insert(second.end(), answer.tokens.begin(), answer.tokens.end());
  for (const TokenId token : {5, 6, 7}) second.push_back(token);
  const api::Completion got = run_one(*llm, second);
  EXPECT_EQ(got.stats.tokens_cached, 53U);  // all but the answer's last token and the new ones
  expect_same(got, cold(second), "second turn");
  // An edit reuses everything before it.
  std::vector<TokenId> edited = second;
  edited[30] = (edited[30] + 1) % 280;
  const api::Completion after_edit = run_one(*llm, edited);
  EXPECT_EQ(after_edit.stats.tokens_cached, 30U);
  EXPECT_EQ(after_edit.stats.match.diverged_at, 30U);
  expect_same(after_edit, cold(edited), "edited");
}

TEST_P(CacheEquality, forks_answer_like_a_sequence_alone) {
  const std::vector<TokenId> tokens = prompt(3, 53);
  const api::Completion expected = cold(tokens, 20);
  const auto llm = load_cache("64MiB");
  api::GenerateRequest greedy = request(tokens, 20);
  greedy.choices = 4;
  for (const api::Completion& choice : run(*llm, {greedy})) {
    expect_same(choice, expected, "choice " + std::to_string(choice.choice));
  }
  EXPECT_GE(llm->stats().cache.blocks_copied, 3U);
}

TEST_P(CacheEquality, equal_prompts_at_once_cost_one_prefill) {
  const std::vector<TokenId> tokens = prompt(4, 97);  // six blocks and one token
  const api::Completion expected = cold(tokens);
  const auto llm = load_cache("64MiB");
  const auto completions = run(*llm, std::vector<api::GenerateRequest>(5, request(tokens)));
  uint32_t computed = 0;
  for (const api::Completion& completion : completions) {
    computed += completion.stats.prompt_tokens_computed;
    expect_same(completion, expected, "one of five");
  }
  EXPECT_EQ(computed, 97U + 4);
}

TEST_P(CacheEquality, evicted_prefixes_are_computed_again_to_the_same_bits) {
  const std::vector<TokenId> tokens = prompt(5, 100);
  const api::Completion expected = cold(tokens);
  const auto llm = load_cache(blocks(10));
  expect_same(run_one(*llm, tokens), expected, "first");
  run_one(*llm, prompt(6, 90));  // takes six blocks of ten
  const api::Completion again = run_one(*llm, tokens);
  EXPECT_GT(llm->stats().cache.groups[0].evicted, 0U);
  EXPECT_LT(again.stats.tokens_cached, 99U);
  EXPECT_GT(again.stats.match.missed_for(kv::MissReason::kEvicted), 0U);
  expect_same(again, expected, "evicted and computed again");
}

TEST_P(CacheEquality, preempted_sequences_resume_to_the_same_bits) {
  const auto llm = load_cache(blocks(14));
  std::vector<api::GenerateRequest> requests;
  for (uint32_t i = 0; i < 4; ++i) requests.push_back(request(prompt(10 + i, 30 + i), 60));
  const auto completions = run(*llm, requests);
  EXPECT_GT(llm->stats().scheduler.preemptions, 0U);
  for (size_t i = 0; i < requests.size(); ++i) {
    expect_same(completions[i], cold(requests[i].prompt, 60), "request " + std::to_string(i));
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CacheEquality,
                         testing::Values(Case{"q4_1_bf16", "llama-q4_1.gguf", "bf16"},
                                         Case{"q8_0_bf16", "llama256-q8_0.gguf", "bf16"},
                                         Case{"f16_f32", "llama-f16.gguf", "f32"},
                                         Case{"q4_1_int8", "llama-q4_1.gguf", "int8"},
                                         Case{"smollm2", nullptr, "bf16"},
                                         Case{"smollm2_int8", nullptr, "int8"}),
                         [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace kvasir::golden
