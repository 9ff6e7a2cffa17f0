// The engine, the scheduler and the cache together, on the fake model.
#include "engine/engine.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "base/fp_env.h"
#include "sim/fake_model.h"

namespace kvasir {
namespace {

constexpr uint32_t kVocab = 97;
constexpr uint32_t kContext = 256;
constexpr kv::GroupShape kGroup{
    .layers = 1, .kv_heads = 1, .head_dim = 16, .dtype = quant::KvDtype::kF32};

struct EngineShape {
  kv::CacheMode mode = kv::CacheMode::kPaged;
  uint32_t block_tokens = 16;
  uint32_t blocks = 256;
  uint32_t sequences_max = 8;
  uint32_t prefill_chunk = 32;
};

std::vector<TokenId> random_tokens(std::mt19937& random, uint32_t count) {
  std::vector<TokenId> tokens(count);
  for (TokenId& token : tokens) token = static_cast<TokenId>(random() % kVocab);
  return tokens;
}

class EngineTest : public testing::Test {
 protected:
  void start(const EngineShape& setup) {
    const kv::BlockLayout layout(kGroup, setup.block_tokens);
    const kv::CacheOptions cache{.mode = setup.mode,
                                 .groups = {kGroup},
                                 .block_tokens = setup.block_tokens,
                                 .budget_bytes = setup.blocks * layout.block_bytes(),
                                 .sequences_max = setup.sequences_max,
                                 .sequence_tokens_max = kContext,
                                 .verify = true};
    const sched::SchedulerLimits limits{.requests_max = 64,
                                        .sequences_max = setup.sequences_max,
                                        .prefill_chunk = setup.prefill_chunk,
                                        .logit_rows_max = 16};
    engine = *engine::Engine::create({.model = &model,
                                      .kernels = kernels::find_kernels(kernels::Isa::kReference),
                                      .clock = &clock},
                                     cache, limits);
  }

  engine::Request request(std::vector<TokenId> tokens, uint32_t max_tokens) const {
    return {.tokens = std::move(tokens), .max_tokens = max_tokens};
  }

  // Steps until everything has ended; the tokens of each request, by id.
  std::map<SequenceId, std::vector<TokenId>> run_all() {
    std::map<SequenceId, std::vector<TokenId>> answers;
    while (!engine->idle()) {
      for (const engine::Event& event : engine->step()) {
        if (event.kind == engine::Event::Kind::kToken) {
          answers[event.sequence].push_back(event.token);
        } else if (event.kind == engine::Event::Kind::kFinished) {
          stats[event.sequence] = *event.stats;
          finish[event.sequence] = event.finish;
        }
      }
      engine->check_invariants();
    }
    return answers;
  }

  // Steps until everything has ended; the answers of a beam search, best first.
  std::vector<std::vector<TokenId>> run_beams(SequenceId beams) {
    std::vector<std::vector<TokenId>> answers;
    for (int steps = 0; !engine->idle(); ++steps) {
      if (steps == 20'000) {
        ADD_FAILURE() << "nothing gets on";
        break;
      }
      for (const engine::Event& event : engine->step()) {
        if (event.kind != engine::Event::Kind::kAnswer) continue;
        EXPECT_EQ(event.sequence, beams);
        answers.emplace_back(event.answer.begin(), event.answer.end());
      }
      engine->check_invariants();
    }
    return answers;
  }

  std::vector<TokenId> oracle(std::vector<TokenId> tokens, uint32_t count) const {
    const size_t prompt = tokens.size();
    for (uint32_t i = 0; i < count; ++i) tokens.push_back(model.next_token(tokens));
    return {tokens.begin() + static_cast<ptrdiff_t>(prompt), tokens.end()};
  }

  base::ScopedFpEnv fp_env;
  sim::FakeModel model{kVocab, {kGroup}};
  base::SteadyClock clock;
  std::unique_ptr<engine::Engine> engine;
  std::map<SequenceId, engine::RequestStats> stats;
  std::map<SequenceId, engine::FinishReason> finish;
};

TEST_F(EngineTest, one_hundred_tokens_cost_5050_pairs_without_a_cache_and_100_with_one) {
  const std::pair<kv::CacheMode, uint64_t> cases[] = {{kv::CacheMode::kNone, 5050},
                                                      {kv::CacheMode::kContiguous, 100},
                                                      {kv::CacheMode::kPaged, 100}};
  for (const auto& [mode, pairs] : cases) {
    start({.mode = mode});
    const SequenceId id = engine->submit(request({1}, 100));
    EXPECT_EQ(run_all()[id], oracle({1}, 100)) << kv::cache_mode_name(mode);
    EXPECT_EQ(stats[id].pairs_computed, pairs) << kv::cache_mode_name(mode);
    EXPECT_EQ(engine->stats().pairs_computed, pairs);
    EXPECT_EQ(finish[id], engine::FinishReason::kLength);
  }
}

TEST_F(EngineTest, random_loads_give_the_oracles_text_in_every_mode) {
  for (uint32_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    start({.mode = static_cast<kv::CacheMode>(seed % 3),
           .block_tokens = below(2) == 0 ? 16U : 32U,
           .blocks = 32 + below(40),
           .sequences_max = 1 + below(8),
           .prefill_chunk = 1 + below(40)});
    std::map<SequenceId, std::vector<TokenId>> expected;
    for (int i = 0; i < 20; ++i) {
      const std::vector<TokenId> prompt = random_tokens(random, 1 + below(60));
      const uint32_t count = 1 + below(40);
      const engine::Request r = request(prompt, count);
      ASSERT_TRUE(engine->check(r).has_value());
      expected[engine->submit(r)] = oracle(prompt, count);
    }
    EXPECT_EQ(run_all(), expected);
    EXPECT_EQ(engine->stats().cache.blocks().referenced(), 0U);
  }
}

TEST_F(EngineTest, an_end_token_ends_the_answer_and_belongs_to_it) {
  start({});
  const std::vector<TokenId> answer = oracle({5, 6, 7}, 20);
  engine::Request r = request({5, 6, 7}, 20);
  r.end_tokens = {answer[4]};
  const SequenceId id = engine->submit(r);
  const std::vector<TokenId> got = run_all()[id];
  EXPECT_EQ(got.back(), answer[4]);
  EXPECT_LE(got.size(), 5U);
  EXPECT_EQ(finish[id], engine::FinishReason::kStop);
}

TEST_F(EngineTest, a_turn_computes_only_what_is_new) {
  start({});
  std::vector<TokenId> tokens = {1, 2, 3, 4, 5};
  for (int turn = 0; turn < 5; ++turn) {
    const SequenceId id = engine->submit(request(tokens, 9));
    const std::vector<TokenId> answer = run_all()[id];
    EXPECT_EQ(answer, oracle(tokens, 9));
    // The last answer's final token was never computed; it and four new ones are.
    EXPECT_EQ(stats[id].prompt_tokens - stats[id].tokens_cached, 5U) << "turn " << turn;
    EXPECT_EQ(stats[id].prompt_tokens_computed, 5U);
    tokens.insert(tokens.end(), answer.begin(), answer.end());
    for (TokenId token : {7, 8, 9, turn}) tokens.push_back(token);
  }
  // An edit of the 30th token reuses the 29 before it.
  tokens[29] = (tokens[29] + 1) % static_cast<TokenId>(kVocab);
  const SequenceId id = engine->submit(request(tokens, 9));
  EXPECT_EQ(run_all()[id], oracle(tokens, 9));
  EXPECT_EQ(stats[id].tokens_cached, 29U);
  EXPECT_EQ(stats[id].match.diverged_at, 29U);
}

TEST_F(EngineTest, choices_share_their_prompt_and_the_first_equals_a_single_answer) {
  start({});
  std::mt19937 random(1);
  const std::vector<TokenId> prompt = random_tokens(random, 50);
  engine::Request r = request(prompt, 30);
  r.sampling.temperature = 1.0F;
  r.sampling.seed = 7;
  const SequenceId alone = engine->submit(r);
  const std::vector<TokenId> single = run_all()[alone];
  r.choices = 4;
  const SequenceId id = engine->submit(r);
  std::map<uint32_t, std::vector<TokenId>> answers;
  while (!engine->idle()) {
    for (const engine::Event& event : engine->step()) {
      ASSERT_EQ(event.sequence, id);
      if (event.kind == engine::Event::Kind::kToken) answers[event.choice].push_back(event.token);
    }
    engine->check_invariants();
  }
  ASSERT_EQ(answers.size(), 4U);
  EXPECT_EQ(answers[0], single);
  for (uint32_t i = 1; i < 4; ++i) {
    EXPECT_EQ(answers[i].size(), 30U);
    EXPECT_NE(answers[i], answers[i - 1]);
  }
}

// Beam search as it is written down, without cache, forks or batches.
std::vector<std::vector<TokenId>> naive_beams(const sim::FakeModel& model,
                                              const std::vector<TokenId>& prompt, uint32_t width,
                                              uint32_t max_tokens,
                                              const std::vector<TokenId>& ends) {
  struct Line {
    std::vector<TokenId> tokens;
    double sum = 0.0;
  };
  sample::Sampler sampler(kVocab, *kernels::find_kernels(kernels::Isa::kReference));
  std::vector<Line> live = {{}};
  std::vector<std::pair<double, std::vector<TokenId>>> done;
  const auto mean = [](const Line& line) {
    return line.sum / static_cast<double>(line.tokens.size());
  };
  const auto finish = [&](const Line& line) {
    done.emplace_back(mean(line), line.tokens);
    std::ranges::sort(done, [](const auto& a, const auto& b) { return a.first > b.first; });
    if (done.size() > width) done.pop_back();
  };
  for (uint32_t step = 1; !live.empty(); ++step) {
    std::vector<Line> all;
    for (const Line& line : live) {
      std::vector<TokenId> tokens = prompt;
      tokens.insert(tokens.end(), line.tokens.begin(), line.tokens.end());
      std::vector<float> logits(kVocab);
      model.oracle_logits(tokens, logits);
      std::vector<sample::TokenLogprob> top(2 * width);
      sampler.top_logprobs(logits, top);
      for (const sample::TokenLogprob& offer : top) {
        all.push_back({line.tokens, line.sum + double{offer.logprob}});
        all.back().tokens.push_back(offer.token);
      }
    }
    std::ranges::sort(all, [](const Line& a, const Line& b) { return a.sum > b.sum; });
    live.clear();
    for (size_t rank = 0; rank < all.size() && live.size() < width; ++rank) {
      if (std::ranges::find(ends, all[rank].tokens.back()) == ends.end()) {
        live.push_back(all[rank]);
      } else if (rank < width) {
        finish(all[rank]);
      }
    }
    if (step == max_tokens) {
      for (const Line& line : live) finish(line);
      break;
    }
    if (done.size() == width && done.back().first >= mean(live[0])) break;
  }
  std::vector<std::vector<TokenId>> answers;
  for (auto& [score, tokens] : done) answers.push_back(std::move(tokens));
  return answers;
}

TEST_F(EngineTest, beams_find_what_a_naive_beam_search_finds) {
  std::mt19937 random(3);
  for (uint32_t width = 1; width <= 6; ++width) {
    SCOPED_TRACE(testing::Message() << "width " << width);
    start({.block_tokens = 16, .blocks = 64});
    const std::vector<TokenId> prompt = random_tokens(random, 20 + width * 7);
    engine::Request r = request(prompt, 25);
    r.beams = width;
    r.end_tokens = {11};
    ASSERT_TRUE(engine->check(r).has_value());
    const SequenceId beams = engine->submit(r);
    engine->submit(request(random_tokens(random, 30), 20));  // company
    EXPECT_EQ(run_beams(beams), naive_beams(model, prompt, width, 25, {11}));
    EXPECT_EQ(engine->stats().cache.blocks().referenced(), 0U);
  }
}

TEST_F(EngineTest, beams_get_on_in_every_mode_with_room_for_one_of_them) {
  std::mt19937 random(6);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(testing::Message() << "round " << round);
    const uint32_t blocks = round % 3 == 1 ? 16 + 16 * below(3) : 9 + below(12);
    start({.mode = static_cast<kv::CacheMode>(round % 3),
           .blocks = blocks,
           .sequences_max = 1 + below(6)});
    engine::Request r = request(random_tokens(random, 1 + below(90)), 1 + below(50));
    r.beams = 1 + below(5);
    for (uint32_t i = below(60); i > 0; --i) {  // few, or most of the vocabulary
      r.end_tokens.push_back(static_cast<TokenId>(below(kVocab)));
    }
    if (!engine->check(r).has_value()) continue;  // more beams than sequences may run
    const SequenceId beams = engine->submit(r);
    engine->submit(request(random_tokens(random, 1 + below(60)), 20));  // company
    EXPECT_EQ(run_beams(beams), naive_beams(model, r.tokens, r.beams, r.max_tokens, r.end_tokens));
  }
}

TEST_F(EngineTest, beams_survive_preemption_and_cancel) {
  start({.block_tokens = 16, .blocks = 27, .sequences_max = 7});
  std::mt19937 random(5);
  const std::vector<TokenId> prompt = random_tokens(random, 40);
  engine::Request r = request(prompt, 60);
  r.beams = 4;
  ASSERT_TRUE(engine->check(r).has_value());
  std::vector<SequenceId> others;
  for (int i = 0; i < 3; ++i)
    others.push_back(engine->submit(request(random_tokens(random, 60), 80)));
  const SequenceId beams = engine->submit(r);
  EXPECT_EQ(run_beams(beams), naive_beams(model, prompt, 4, 60, {}));
  EXPECT_GT(engine->stats().scheduler.preemptions, 0U);
  const SequenceId cancelled = engine->submit(r);
  for (int i = 0; i < 9; ++i) engine->step();
  EXPECT_NE(engine->cancel(cancelled), nullptr);
  EXPECT_TRUE(engine->idle());
  engine->check_invariants();
  EXPECT_EQ(engine->stats().cache.blocks().referenced(), 0U);
}

TEST_F(EngineTest, retained_prompts_survive_a_sweep_until_their_time_is_over) {
  constexpr uint64_t kHour = 3'600'000'000;
  for (const uint64_t retain_us : {uint64_t{0}, uint64_t{1}, kHour}) {
    SCOPED_TRACE(testing::Message() << "retain_us " << retain_us);
    start({.block_tokens = 16, .blocks = 24});
    std::mt19937 random(9);
    engine::Request kept = request(random_tokens(random, 70), 3);  // four full blocks of six
    kept.retain_us = retain_us;
    engine->submit(kept);
    run_all();
    EXPECT_EQ(engine->stats().cache.pinned_bytes > 0, retain_us > 0);
    for (int i = 0; i < 12; ++i) {  // three times the pool
      engine->submit(request(random_tokens(random, 90), 3));
      run_all();
    }
    const SequenceId again = engine->submit(kept);
    EXPECT_EQ(run_all()[again], oracle(kept.tokens, 3));
    EXPECT_EQ(stats[again].tokens_cached, retain_us == kHour ? 69U : 0U);
  }
}

TEST_F(EngineTest, retained_blocks_give_way_where_nothing_else_could_run) {
  start({.block_tokens = 16, .blocks = 12});
  std::mt19937 random(10);
  engine::Request kept = request(random_tokens(random, 50), 1);
  kept.retain_us = 3'600'000'000;
  engine->submit(kept);
  run_all();
  const std::vector<TokenId> prompt = random_tokens(random, 180);  // all twelve blocks
  const SequenceId id = engine->submit(request(prompt, 12));
  EXPECT_EQ(run_all()[id], oracle(prompt, 12));
}

TEST_F(EngineTest, cancel_frees_the_blocks_at_once_and_leaves_the_others_alone) {
  start({});
  const SequenceId a = engine->submit(request({1, 2, 3}, 50));
  const SequenceId b = engine->submit(request({4, 5}, 30));
  for (int i = 0; i < 5; ++i) engine->step();
  const uint32_t before = engine->stats().cache.blocks().referenced();
  const engine::RequestStats* cost = engine->cancel(a);
  ASSERT_NE(cost, nullptr);
  EXPECT_EQ(cost->tokens_generated, 5U);
  EXPECT_LT(engine->stats().cache.blocks().referenced(), before);
  EXPECT_EQ(engine->cancel(a), nullptr);
  std::vector<TokenId> expected = oracle({4, 5}, 30);
  expected.erase(expected.begin(), expected.begin() + 5);
  EXPECT_EQ(run_all()[b], expected);
}

TEST_F(EngineTest, a_scored_prompt_gives_one_event_per_row_in_order) {
  start({});
  std::mt19937 random(1);
  const std::vector<TokenId> prompt = random_tokens(random, 50);
  engine::Request r = request(prompt, 0);
  r.score_prompt = true;
  engine->submit(r);
  uint32_t rows = 0;
  while (!engine->idle()) {
    for (const engine::Event& event : engine->step()) {
      if (event.kind != engine::Event::Kind::kScore) continue;
      EXPECT_EQ(event.position, rows);
      const std::vector<TokenId> prefix(prompt.begin(), prompt.begin() + rows + 1);
      EXPECT_EQ(event.token, model.next_token(prefix));
      EXPECT_EQ(event.logits.size(), kVocab);
      ++rows;
    }
  }
  EXPECT_EQ(rows, 50U);
}

TEST_F(EngineTest, requests_that_can_not_work_are_refused_in_one_line) {
  start({.blocks = 8});  // 128 tokens
  const std::pair<engine::Request, const char*> cases[] = {
      {request({}, 1), "empty"},
      {request({-1}, 1), "outside the vocabulary"},
      {request({97}, 1), "outside the vocabulary"},
      {request(std::vector<TokenId>(200, 1), 100), "context"},
      {request(std::vector<TokenId>(100, 1), 100), "--kv-memory"},
      {{.tokens = {1}, .max_tokens = 1, .top_logprobs = 21}, "top_logprobs"},
      {{.tokens = {1}, .max_tokens = 1, .sampling = {.temperature = -1.0F}}, "temperature"},
  };
  for (const auto& [bad, word] : cases) {
    const base::Status status = engine->check(bad);
    ASSERT_FALSE(status.has_value()) << word;
    EXPECT_EQ(status.error().kind, base::ErrorKind::kBadInput);
    EXPECT_NE(status.error().message.find(word), std::string::npos) << status.error().message;
    EXPECT_EQ(status.error().message.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace kvasir
