// The equality laws: what must not change a single bit of any logit. One digest covers the raw
// logits of every sampled position.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "golden/golden.h"

namespace kvasir::golden {
namespace {

struct Outcome {
  std::vector<TokenId> tokens;
  std::string digest;
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << outcome.digest << " after " << outcome.tokens.size() << " tokens";
}

api::GenerateRequest request_for(const std::vector<TokenId>& prompt, uint32_t count) {
  return {.prompt = prompt, .max_tokens = count, .ignore_eos = true, .digest_logits = true};
}

// The outcome of `prompt`, alone or as the middle one of eight requests of other lengths.
Outcome run(const api::EngineFlags& flags, const std::vector<TokenId>& prompt, uint32_t count,
            bool with_company = false) {
  const auto llm = load(flags, 1);
  std::vector<api::GenerateRequest> requests;
  const size_t own = with_company ? 3 : 0;
  for (size_t i = 0; i < (with_company ? 8 : 1); ++i) {
    std::vector<TokenId> tokens = prompt;
    if (i != own) {
      tokens.resize(1 + (i * 37) % prompt.size());
      for (TokenId& token : tokens) token = (token + static_cast<TokenId>(i)) % 200;
    }
    requests.push_back(request_for(tokens, i == own ? count : 1 + static_cast<uint32_t>(i) * 5));
  }
  const auto completions = llm->generate(requests, {});
  EXPECT_TRUE(completions.has_value()) << completions.error().message;
  const api::Completion& completion = completions->at(own);
  return {completion.tokens, base::to_hex(*completion.stats.logits_digest)};
}

std::vector<TokenId> random_prompt(uint32_t seed, uint32_t count, TokenId vocab) {
  std::mt19937 random(seed);
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(random() % static_cast<uint32_t>(vocab));
  }
  return tokens;
}

// Every law, one change at a time, against the default settings.
struct Law {
  std::string name;
  api::EngineFlags flags;
  bool with_company = false;
};

std::vector<Law> laws_for(const api::EngineFlags& start) {
  std::vector<Law> laws;
  const auto add = [&](std::string name, auto change) {
    Law law{.name = std::move(name), .flags = start};
    change(law);
    laws.push_back(std::move(law));
  };
  for (const int threads : {1, 2, 3}) {
    add("threads " + std::to_string(threads), [&](Law& l) { l.flags.threads = threads; });
  }
  for (const char* chunk : {"1", "7", "64", "all"}) {
    add(std::string("chunk ") + chunk, [&](Law& l) { l.flags.prefill_chunk = chunk; });
  }
  for (const uint32_t block : {16U, 32U}) {
    add("block " + std::to_string(block), [&](Law& l) { l.flags.block_tokens = block; });
  }
  for (const char* mode : {"none", "contiguous", "paged"}) {
    add(std::string("mode ") + mode, [&](Law& l) { l.flags.kv = mode; });
  }
  add("with seven others", [](Law& l) { l.with_company = true; });
  add("with seven others in chunks of 7, contiguous", [](Law& l) {
    l.with_company = true;
    l.flags.prefill_chunk = "7";
    l.flags.kv = "contiguous";
  });
  add("no cache, in chunks of 7, blocks of 16", [](Law& l) {
    l.flags.kv = "none";
    l.flags.prefill_chunk = "7";
    l.flags.block_tokens = 16;
  });
  return laws;
}

struct Case {
  const char* model;
  const char* kv_dtype;
  const char* weights;
  const char* attention_order = "pairs";
};

class EqualityLaws : public testing::TestWithParam<Case> {};

TEST_P(EqualityLaws, hold_for_every_isa_which_also_agree_with_each_other) {
  const Case& c = GetParam();
  const std::vector<TokenId> prompt = random_prompt(42, 70, 288);
  std::optional<Outcome> first;
  for (const kernels::Isa isa : kernels::supported_isas()) {
    const api::EngineFlags start{.model = path_of(std::string("tiny/") + c.model + ".gguf"),
                                 .kv_dtype = c.kv_dtype,
                                 .kv_memory = "64MiB",  // room for all eight at once
                                 .weights = c.weights,
                                 .isa = std::string(kernels::isa_name(isa)),
                                 .attention_order = c.attention_order};
    const Outcome expected = run(start, prompt, 8);
    if (!first) first = expected;
    EXPECT_EQ(expected, *first) << "isa " << start.isa << " differs from the reference";
    for (const Law& law : laws_for(start)) {
      EXPECT_EQ(run(law.flags, prompt, 8, law.with_company), expected)
          << "isa " << start.isa << ", " << law.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Tiny, EqualityLaws,
    testing::Values(Case{"llama-q4_0", "bf16", "native"}, Case{"llama-q4_1", "bf16", "native"},
                    Case{"llama-q5_0", "f32", "native"}, Case{"llama-q5_1", "bf16", "native"},
                    Case{"llama256-q8_0", "bf16", "native"}, Case{"llama-f16", "bf16", "native"},
                    Case{"llama-bf16", "bf16", "native"},
                    Case{"llama-mha-untied", "bf16", "native"}, Case{"llama31", "f32", "f32"},
                    Case{"llama-q4_1", "int8", "native"}, Case{"llama256-q8_0", "int8", "native"},
                    Case{"llama-q4_1", "bf16", "native", "tiles"},
                    Case{"llama256-q8_0", "bf16", "native", "tiles"},
                    Case{"llama-mha-untied", "bf16", "native", "tiles"}),
    [](const auto& param) {
      std::string name = fmt::format("{}_{}_{}_{}", param.param.model, param.param.kv_dtype,
                                     param.param.weights, param.param.attention_order);
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

// Past one attention span (512 positions), on the real model.
class EqualityLawsSmolLm2InOrder : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, EqualityLawsSmolLm2InOrder, testing::Values("pairs", "tiles"));

TEST_P(EqualityLawsSmolLm2InOrder, hold_past_the_first_attention_span) {
  const std::vector<TokenId> prompt = random_prompt(7, 530, 40000);
  const api::EngineFlags start{.model = default_model(),
                               .kv_memory = "512MiB",
                               .attention_order = GetParam(),
                               .context = 1024};
  const Outcome expected = run(start, prompt, 8);
  const auto same = [&](const char* name, auto change) {
    api::EngineFlags flags = start;
    change(flags);
    EXPECT_EQ(run(flags, prompt, 8), expected) << name;
  };
  same("chunk 7, one thread", [](api::EngineFlags& f) {
    f.prefill_chunk = "7";
    f.threads = 1;
  });
  same("all at once, three threads, blocks of 16", [](api::EngineFlags& f) {
    f.prefill_chunk = "all";
    f.threads = 3;
    f.block_tokens = 16;
  });
  same("no cache", [](api::EngineFlags& f) { f.kv = "none"; });
  same("contiguous", [](api::EngineFlags& f) { f.kv = "contiguous"; });
  EXPECT_EQ(run(start, prompt, 8, /*with_company=*/true), expected);
  for (const kernels::Isa isa : kernels::supported_isas()) {
    if (isa == kernels::Isa::kReference) continue;  // minutes; the tiny models cover it
    same("isa", [&](api::EngineFlags& f) { f.isa = std::string(kernels::isa_name(isa)); });
  }
}

// Neighbours with the same blocks read them once, which must not show. 560 tokens in common, some
// more for each, decoded together and one by one.
TEST_P(EqualityLawsSmolLm2InOrder, hold_for_neighbours_that_share_a_span) {
  const std::vector<TokenId> prefix = random_prompt(8, 560, 40000);
  std::vector<api::GenerateRequest> requests;
  for (uint32_t i = 0; i < 10; ++i) {
    std::vector<TokenId> prompt = prefix;
    if (i == 4) prompt = random_prompt(9, 600, 40000);  // shares nothing, amid the others
    prompt.insert(prompt.end(), i, static_cast<TokenId>(100 + i));
    requests.push_back(request_for(prompt, 6));
  }
  const auto outcome = [](const api::Completion& c) {
    return Outcome{c.tokens, base::to_hex(*c.stats.logits_digest)};
  };
  for (const char* dtype : {"bf16", "int8", "f32"}) {
    const auto llm = load({.model = default_model(),
                           .kv_dtype = dtype,
                           .kv_memory = "1GiB",
                           .attention_order = GetParam(),
                           .context = 1024},
                          1);
    std::vector<Outcome> alone;
    for (const api::GenerateRequest& request : requests) {
      const auto completions = llm->generate(std::span(&request, 1), {});
      ASSERT_TRUE(completions.has_value());
      alone.push_back(outcome(completions->at(0)));
    }
    const auto together = llm->generate(requests, {});
    ASSERT_TRUE(together.has_value());
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(outcome(together->at(i)), alone[i]) << dtype << ' ' << i;
    }
  }
}

// Three KV heads on two threads: one of them is cut at a span.
TEST_P(EqualityLawsSmolLm2InOrder, hold_for_a_lone_row_whose_heads_do_not_go_up_in_the_threads) {
  const api::GenerateRequest request = request_for(random_prompt(10, 1200, 40000), 6);
  for (const char* dtype : {"bf16", "int8", "f32"}) {
    std::optional<Outcome> first;
    for (const int threads : {1, 2}) {
      const auto llm = load({.model = default_model(),
                             .kv_dtype = dtype,
                             .kv_memory = "256MiB",
                             .threads = threads,
                             .attention_order = GetParam(),
                             .context = 1536},
                            1);
      const auto completions = llm->generate(std::span(&request, 1), {});
      ASSERT_TRUE(completions.has_value());
      const api::Completion& said = completions->at(0);
      const Outcome outcome{said.tokens, base::to_hex(*said.stats.logits_digest)};
      if (!first) first = outcome;
      EXPECT_EQ(outcome, *first) << dtype << ", " << threads << " threads";
    }
  }
}

TEST(EqualityLawsSmolLm2, one_hundred_tokens_without_and_with_a_cache) {
  const std::pair<const char*, uint64_t> cases[] = {
      {"none", 5050}, {"contiguous", 100}, {"paged", 100}};
  std::optional<Outcome> first;
  for (const auto& [mode, pairs] : cases) {
    const auto llm = load({.model = default_model(), .kv = mode}, 1);
    const api::GenerateRequest request = request_for({1}, 100);
    const auto completions = llm->generate(std::span(&request, 1), {});
    ASSERT_TRUE(completions.has_value());
    const api::Completion& c = completions->at(0);
    EXPECT_EQ(c.stats.pairs_computed, pairs) << mode;
    const Outcome outcome{c.tokens, base::to_hex(*c.stats.logits_digest)};
    if (!first) first = outcome;
    EXPECT_EQ(outcome, *first) << mode;
  }
}

TEST(EqualityLawsSmolLm2, a_seeded_draw_is_the_same_in_every_mode_and_company) {
  const std::vector<TokenId> prompt = random_prompt(3, 40, 40000);
  std::optional<std::vector<TokenId>> first;
  for (const char* mode : {"none", "contiguous", "paged"}) {
    const auto llm = load({.model = default_model(), .kv = mode, .kv_memory = "512MiB"}, 1);
    api::GenerateRequest request = request_for(prompt, 20);
    request.sampling = {.temperature = 1.0F, .top_k = 50, .top_p = 0.95F, .seed = 99};
    const std::vector<api::GenerateRequest> both = {request, request_for({5, 6, 7}, 9)};
    for (const size_t count : {size_t{1}, size_t{2}}) {
      const auto completions = llm->generate(std::span(both).first(count), {});
      ASSERT_TRUE(completions.has_value());
      if (!first) first = completions->at(0).tokens;
      EXPECT_EQ(completions->at(0).tokens, *first) << mode;
    }
  }
}

}  // namespace
}  // namespace kvasir::golden
