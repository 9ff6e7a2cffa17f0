// One setup of a soak: its engine, its clients, and the laws that are checked on the way.
//
// Thread: one thread calls everything. Allocates: yes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/fp_env.h"
#include "engine/engine.h"
#include "sample/sampler.h"
#include "sim/fake_model.h"
#include "sim/soak.h"
#include "sim/soak_clients.h"
#include "sim/soak_oracle.h"

namespace kvasir::sim {

class SoakClock final : public base::Clock {
 public:
  uint64_t now_us() const override { return now_us_; }
  void advance(uint64_t us) { now_us_ += us; }

 private:
  uint64_t now_us_ = 1;
};

// A fake model that takes time.
class SoakModel final : public model::Model {
 public:
  SoakModel(const SoakSetup& setup, SoakClock& clock, SoakRandom& random)
      : fake_(setup.vocab, setup.cache.groups), clock_(clock), random_(random) {}

  uint32_t vocab_size() const override { return fake_.vocab_size(); }
  uint32_t layers() const override { return fake_.layers(); }
  void forward(const model::Batch& batch, base::Span2D<float> logits) override {
    fake_.forward(batch, logits);
    clock_.advance(batch.tokens.size() * (10 + random_.below(10)));
  }
  void encode(const model::EncoderInput& input) override { fake_.encode(input); }
  bool has_encoder() const override { return fake_.has_encoder(); }
  uint64_t tokens_computed() const { return fake_.tokens_computed(); }

 private:
  FakeModel fake_;
  SoakClock& clock_;
  SoakRandom& random_;
};

// Which prefixes were said in which domain, and by whom: what a cache may have.
class SoakMemory {
 public:
  static uint64_t start(const engine::Request& request);
  void note(uint64_t prefix, SequenceId by);
  bool said_by_others(uint64_t prefix, SequenceId than) const;
  void clear() { said_.clear(); }

 private:
  struct Said {
    SequenceId first{};
    bool others = false;
  };
  std::unordered_map<uint64_t, Said> said_;
};

class SoakRun {
 public:
  SoakRun(const SoakSetup& setup, uint32_t steps_per_check);

  // Until `tokens` have been counted and everything has ended. What went wrong, if anything.
  std::optional<std::string> run(uint64_t tokens);
  // Valid after run().
  const SoakFigures& figures() const { return figures_; }

 private:
  struct Answer {
    std::vector<TokenId> tokens;
    uint64_t prefix = 0;  // hash of prompt and answer so far
    bool ended = false;
    bool finished = false;  // ended by itself
    engine::FinishReason reason = engine::FinishReason::kLength;
  };
  struct Active {
    SequenceId id{};
    uint32_t client = 0;
    engine::Request request;
    std::vector<Answer> answers;  // by choice
    std::vector<TokenId> scores;  // most likely token after each prompt token
    uint32_t ended = 0;
    bool paused = false;
  };

  bool failed() const { return failure_.has_value(); }
  void fail(std::string what);
  void expect(bool law, const char* what);
  void fill();
  void submit(uint32_t client);
  void step();
  void take(const engine::Event& event);
  void take_finished(Active& active, const engine::Event& event);
  void check_hits(const Active& active, const engine::RequestStats& stats);
  void cancel_one();
  void pause_one();
  bool resume_all();
  void end_request(size_t index);
  void check_answers(const Active& active);
  void check_answer(const Active& active, uint32_t choice);
  void check_scores(const Active& active);
  void check_idle();
  void watch_progress(bool events);
  void add_up();
  size_t index_of_active(SequenceId id) const;

  SoakSetup setup_;
  uint32_t steps_per_check_;
  base::ScopedFpEnv fp_env_;
  SoakRandom random_;
  SoakClock clock_;
  SoakModel model_;
  SoakClients clients_;
  SoakOracle oracle_;
  sample::Sampler sampler_;
  SoakMemory memory_;
  std::unique_ptr<engine::Engine> engine_;
  std::vector<Active> active_;
  std::vector<uint32_t> free_clients_;
  SoakFigures figures_;
  std::optional<std::string> failure_;
  bool draining_ = false;
  uint64_t computed_before_ = 0;
  uint32_t steps_idle_ = 0;    // in a row, that computed nothing
  uint32_t steps_silent_ = 0;  // in a row, without an event
};

}  // namespace kvasir::sim
