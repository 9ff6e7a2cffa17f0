#include "api/service.h"

#include <gtest/gtest.h>

#include <future>
#include <map>
#include <random>

#include "base/check.h"

namespace kvasir::api {
namespace {

constexpr uint32_t kVocab = 280;  // ids below it are in the tiny model's vocabulary

std::unique_ptr<Llm> tiny_model(uint32_t tenants = 1) {
  constexpr uint32_t kSequencesMax = 4;
  EngineFlags flags;
  flags.model = KVASIR_SOURCE_DIR "/tests/golden/tiny/llama-q4_0.gguf";
  flags.threads = 1;
  flags.max_sequences = kSequencesMax;
  flags.block_tokens = 16;
  auto options = parse_options(flags);
  CHECK(options.has_value());
  options->requests_max = 64;
  options->tenant_weights.assign(tenants, 1.0);
  options->logit_rows_max = kSequencesMax + 8;
  options->kv_verify = true;
  auto llm = Llm::load(*options, {});
  CHECK(llm.has_value());
  return *std::move(llm);
}

std::unique_ptr<Service> tiny_service(uint32_t answers_max = 64, uint64_t tokens_max = UINT64_MAX) {
  return Service::start(tiny_model(), {.answers_max = answers_max, .tokens_max = tokens_max});
}

std::vector<TokenId> prompt_of(uint32_t seed, uint32_t tokens) {
  std::mt19937 random(seed);
  std::vector<TokenId> prompt(tokens);
  for (TokenId& token : prompt) token = static_cast<TokenId>(random() % kVocab);
  return prompt;
}

GenerateRequest request_of(uint32_t seed, uint32_t tokens = 20, uint32_t max_tokens = 12) {
  return {.prompt = prompt_of(seed, tokens), .max_tokens = max_tokens, .ignore_eos = true};
}

// Collects what is heard; wait() returns when all choices have ended.
class Ear final : public AnswerListener {
 public:
  explicit Ear(uint32_t choices = 1) : answers_(choices), open_(choices) {}

  void on_part(AnswerPart part) override {
    AnswerPart& answer = answers_.at(part.choice);
    EXPECT_FALSE(answer.ending.has_value()) << "news of an answer that has ended";
    answer.text += part.text;
    answer.tokens.insert(answer.tokens.end(), part.tokens.begin(), part.tokens.end());
    answer.details.insert(answer.details.end(), part.details.begin(), part.details.end());
    if (!part.tokens.empty() && !std::exchange(began_, true)) begun_.set_value();
    answer.ending = part.ending;
    if (part.ending && --open_ == 0) ended_.set_value();
  }
  void on_score(const PromptScore& score) override { scores.push_back(score); }

  const AnswerPart& wait(uint32_t choice = 0) {
    if (done_.valid()) done_.get();
    return answers_.at(choice);
  }
  void wait_for_token() { begun_.get_future().wait(); }
  EndReason reason(uint32_t choice = 0) { return wait(choice).ending->reason; }

  std::vector<PromptScore> scores;

 private:
  std::vector<AnswerPart> answers_;
  uint32_t open_;
  bool began_ = false;
  std::promise<void> begun_;
  std::promise<void> ended_;
  std::future<void> done_ = ended_.get_future();
};

std::shared_ptr<Ear> ask(Service& service, GenerateRequest request, Deadlines deadlines = {}) {
  auto ear = std::make_shared<Ear>(request.choices);
  EXPECT_TRUE(service.check(request).has_value());
  EXPECT_TRUE(service.submit({std::move(request), deadlines}, ear).has_value());
  return ear;
}

engine::EngineStats engine_stats(Service& service) {
  std::promise<engine::EngineStats> stats;
  service.with_engine([&](engine::Engine& engine) {
    engine.check_invariants();
    stats.set_value(engine.stats());
  });
  return stats.get_future().get();
}

TEST(Service, answers_what_the_library_answers) {
  const auto service = tiny_service();
  const auto llm = tiny_model();
  std::vector<GenerateRequest> requests;
  for (uint32_t seed = 0; seed < 12; ++seed) {
    requests.push_back(request_of(seed, 5 + 3 * seed));
    if (seed % 2 == 1) requests.back().sampling = {.temperature = 0.9F, .seed = seed};
    requests.back().logprobs = true;
    requests.back().top_logprobs = 3;
  }
  std::vector<std::shared_ptr<Ear>> ears;
  ears.reserve(requests.size());
  for (const GenerateRequest& request : requests) ears.push_back(ask(*service, request));
  const auto expected = llm->generate(requests, {});
  ASSERT_TRUE(expected.has_value());
  for (size_t i = 0; i < requests.size(); ++i) {
    const AnswerPart& answer = ears[i]->wait();
    EXPECT_EQ(answer.tokens, (*expected)[i].tokens);
    EXPECT_EQ(answer.text, (*expected)[i].text);
    EXPECT_EQ(ears[i]->reason(), EndReason::kLength);
    ASSERT_EQ(answer.details.size(), answer.tokens.size());
    for (size_t t = 0; t < answer.details.size(); ++t) {
      EXPECT_EQ(answer.details[t].logprob, (*expected)[i].details[t].logprob);
      EXPECT_EQ(answer.details[t].top.size(), 3U);
    }
  }
}

TEST(Service, takes_requests_from_many_threads_at_once) {
  const auto service = tiny_service();
  std::map<uint32_t, std::vector<TokenId>> lone;
  for (uint32_t seed = 0; seed < 4; ++seed) {
    lone[seed] = ask(*service, request_of(seed))->wait().tokens;
  }
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (uint32_t thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (uint32_t i = 0; i < 10; ++i) {
        const uint32_t seed = (thread + i) % 4;
        EXPECT_EQ(ask(*service, request_of(seed))->wait().tokens, lone[seed]);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(engine_stats(*service).cache.blocks().referenced(), 0U);
}

TEST(Service, every_choice_is_heard_and_ends_once) {
  const auto service = tiny_service();
  GenerateRequest request = request_of(3);
  request.choices = 3;
  request.sampling = {.temperature = 1.5F, .seed = 1};
  const auto ear = ask(*service, request);
  const auto expected = tiny_model()->generate(std::span(&request, 1), {});
  for (uint32_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(ear->wait(choice).tokens, (*expected)[choice].tokens);
  }
}

TEST(Service, says_what_stopped_an_answer) {
  const auto service = tiny_service();
  const auto whole = ask(*service, request_of(1, 20, 12));
  const std::vector<TokenId> tokens = whole->wait().tokens;
  GenerateRequest by_token = request_of(1, 20, 12);
  by_token.stop_tokens = {tokens[4]};
  const auto token_ear = ask(*service, by_token);
  EXPECT_EQ(token_ear->reason(), EndReason::kStop);
  EXPECT_EQ(std::get<TokenId>(token_ear->wait().ending->stopped_by), tokens[4]);
  EXPECT_LE(token_ear->wait().tokens.size(), 5U);

  const std::string text = whole->wait().text;
  ASSERT_GT(text.size(), 4U);
  GenerateRequest by_text = request_of(1, 20, 12);
  by_text.stop = {text.substr(2, 2)};
  const auto text_ear = ask(*service, by_text);
  EXPECT_EQ(text_ear->reason(), EndReason::kStop);
  EXPECT_EQ(std::get<std::string>(text_ear->wait().ending->stopped_by), by_text.stop[0]);
  EXPECT_EQ(text_ear->wait().text, text.substr(0, text.find(by_text.stop[0])));
  by_text.keeps_stop = true;
  EXPECT_TRUE(ask(*service, by_text)->wait().text.ends_with(by_text.stop[0]));
}

TEST(Service, no_end_token_comes_before_the_least_number_of_tokens) {
  const auto service = tiny_service();
  const std::vector<TokenId> tokens = ask(*service, request_of(1, 20, 12))->wait().tokens;
  GenerateRequest request = request_of(1, 20, 12);
  request.stop_tokens = {tokens[0]};
  EXPECT_EQ(ask(*service, request)->wait().tokens.size(), 1U);
  request.min_tokens = 5;
  const std::vector<TokenId> longer = ask(*service, request)->wait().tokens;
  ASSERT_GE(longer.size(), 5U);
  for (size_t i = 0; i + 1 < longer.size(); ++i) EXPECT_NE(longer[i], tokens[0]);
}

TEST(Service, scores_a_prompt_as_the_library_does) {
  const auto service = tiny_service();
  GenerateRequest request = request_of(5, 30, 0);
  request.score_prompt = true;
  request.reads_cache = false;
  request.top_logprobs = 2;
  request.choices = 2;
  const auto ear = ask(*service, request);
  EXPECT_EQ(ear->reason(0), EndReason::kLength);
  EXPECT_EQ(ear->reason(1), EndReason::kLength) << "where nothing is generated, all choices end";
  std::vector<float> expected;
  const auto scored = tiny_model()->score(request.prompt,
                                          [&](const ScoredRow& row) {
                                            if (row.next_logprob)
                                              expected.push_back(*row.next_logprob);
                                          },
                                          {});
  ASSERT_TRUE(scored.has_value());
  ASSERT_EQ(ear->scores.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(ear->scores[i].position, i + 1);
    EXPECT_EQ(ear->scores[i].detail.logprob, expected[i]);
    EXPECT_EQ(ear->scores[i].detail.top.size(), 2U);
  }
}

TEST(Service, refuses_what_the_queue_has_no_room_for) {
  const auto service = tiny_service(/*answers_max=*/2);
  const auto first = ask(*service, request_of(1, 20, 200));
  const auto second = ask(*service, request_of(2, 20, 200));
  const auto refused = service->submit({request_of(3), {}}, std::make_shared<Ear>());
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error(), Refusal::kQueueFull);
  first->wait();
  EXPECT_TRUE(service->submit({request_of(3), {}}, std::make_shared<Ear>()).has_value());
}

TEST(Service, one_tenant_leaves_others_room_in_the_queue) {
  const auto service = Service::start(tiny_model(/*tenants=*/2), {.answers_max = 10, .tenants = 2});
  std::vector<std::shared_ptr<Ear>> ears;
  const auto submit = [&](uint32_t tenant) {
    GenerateRequest request = request_of(1, 20, 300);
    request.tenant = tenant;
    const auto ear = std::make_shared<Ear>();
    const bool taken = service->submit({std::move(request), {}}, ear).has_value();
    if (taken) ears.push_back(ear);
    return taken;
  };
  uint32_t flood = 0;
  while (submit(0)) ++flood;
  EXPECT_EQ(flood, 8U);
  EXPECT_TRUE(submit(1));
  for (const auto& ear : ears) ear->wait();
}

TEST(Service, one_tenant_leaves_others_room_in_the_budget_of_tokens) {
  const auto service = Service::start(tiny_model(/*tenants=*/2),
                                      {.answers_max = 64, .tokens_max = 10 * 320, .tenants = 2});
  std::vector<std::shared_ptr<Ear>> ears;
  const auto submit = [&](uint32_t tenant) {
    GenerateRequest request = request_of(1, 20, 300);
    request.tenant = tenant;
    ears.push_back(std::make_shared<Ear>());
    const bool taken = service->submit({std::move(request), {}}, ears.back()).has_value();
    if (!taken) ears.pop_back();
    return taken;
  };
  uint32_t flood = 0;
  while (submit(0)) ++flood;
  EXPECT_EQ(flood, 8U);
  EXPECT_EQ(service->limits_of_one_tenant().tokens_max, 8U * 320);
  EXPECT_TRUE(submit(1));
  for (const auto& ear : ears) ear->wait();
}

TEST(Service, counts_tokens_but_lets_a_large_request_run_alone) {
  const auto service = tiny_service(64, /*tokens_max=*/100);
  const auto large = ask(*service, request_of(1, 20, 200));
  const auto refused = service->submit({request_of(2), {}}, std::make_shared<Ear>());
  ASSERT_FALSE(refused.has_value());
  large->wait();
  ask(*service, request_of(2))->wait();
}

TEST(Service, a_draining_service_finishes_what_it_has) {
  const auto service = tiny_service();
  const auto ear = ask(*service, request_of(1, 20, 50));
  service->drain();
  const auto refused = service->submit({request_of(2), {}}, std::make_shared<Ear>());
  EXPECT_EQ(refused.error(), Refusal::kDraining);
  EXPECT_EQ(ear->wait().tokens.size(), 50U);
  EXPECT_TRUE(service->idle());
}

TEST(Service, a_request_that_misses_a_deadline_ends) {
  const auto service = tiny_service();
  const auto late = ask(*service, request_of(1, 20, 200), {.finished_us = 1});
  EXPECT_EQ(late->reason(), EndReason::kDeadline);
  const auto never_begun = ask(*service, request_of(1, 20, 3), {.begun_us = 10'000'000});
  EXPECT_EQ(never_begun->reason(), EndReason::kLength);
}

TEST(Service, a_paused_request_holds_nothing_and_its_text_does_not_change) {
  const auto service = tiny_service();
  const std::vector<TokenId> lone = ask(*service, request_of(7, 20, 150))->wait().tokens;
  const auto ear = std::make_shared<Ear>();
  const auto id = service->submit({request_of(7, 20, 150), {}}, ear);
  ear->wait_for_token();
  service->pause(*id);
  EXPECT_EQ(engine_stats(*service).cache.blocks().referenced(), 0U);
  service->resume(*id);
  EXPECT_EQ(ear->wait().tokens, lone);
}

TEST(Service, random_cancels_leave_the_books_in_order) {
  constexpr uint32_t kSeed = 11;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
  const auto service = tiny_service();
  std::vector<std::shared_ptr<Ear>> ears;
  for (int i = 0; i < 300; ++i) {
    GenerateRequest request = request_of(below(10), 1 + below(60), 1 + below(40));
    if (below(4) == 0) request.choices = 1 + below(3);
    const auto ear = std::make_shared<Ear>(request.choices);
    const auto id = service->submit({request, {}}, ear);
    if (!id) {
      ears[below(static_cast<uint32_t>(ears.size()))]->wait();
      continue;
    }
    ears.push_back(ear);
    if (below(3) == 0) service->pause(*id);
    if (below(2) == 0) std::this_thread::yield();
    if (below(2) == 0) {
      service->cancel(*id);
    } else {
      service->resume(*id);
    }
  }
  for (const auto& ear : ears) ear->wait();
  const engine::EngineStats stats = engine_stats(*service);
  EXPECT_EQ(stats.cache.blocks().referenced(), 0U);
  EXPECT_EQ(stats.cache.sequences, 0U);
  EXPECT_EQ(service->stats().answers, 0U);
  EXPECT_EQ(service->stats().tokens, 0U);
}

TEST(Service, ends_what_is_under_way_when_it_goes) {
  auto service = tiny_service();
  const auto ear = ask(*service, request_of(1, 20, 200));
  service.reset();
  EXPECT_TRUE(ear->wait().ending.has_value());
}

TEST(Service, may_be_asked_for_things_after_it_has_stopped) {
  const auto service = tiny_service();
  const auto ear = std::make_shared<Ear>();
  const auto id = service->submit({request_of(1, 20, 400), {}}, ear);
  ASSERT_TRUE(id.has_value());
  service->stop();
  ear->wait();  // its answer has ended
  service->pause(*id);
  service->cancel(*id);
  service->stop();
}

TEST(Service, looks_at_its_books_when_there_is_nothing_to_do) {
  const auto service = tiny_service();
  ask(*service, request_of(1))->wait();
  uint64_t audits = 0;
  while (audits == 0) audits = service->stats().audits;
  EXPECT_EQ(service->stats().audits_wrong, 0U);
}

}  // namespace
}  // namespace kvasir::api
