// One generate() call: feeds the engine, turns its tokens into text, finds stop strings.
// Thread: one owner. Allocates: freely.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "api/answer_stream.h"
#include "api/llm.h"

namespace kvasir::api {

class Llm::Run {
 public:
  Run(engine::Engine& engine, const text::Tokenizer& tokenizer, const GenerateHooks& hooks)
      : engine_(engine), tokenizer_(tokenizer), hooks_(hooks) {}

  // Error: the request can not be run.
  base::Status add(const GenerateRequest& request);
  // Runs until every request has ended.
  std::vector<Completion> finish_all();

 private:
  // One request, whose answers are consecutive streams.
  struct Pending {
    engine::Request request;  // until it is submitted
    size_t first_stream = 0;
  };
  struct Stream {
    AnswerStream answer;
    Completion completion;
  };

  void submit_waiting();
  void step();
  uint64_t prompt_tokens_computed() const;
  void handle(const engine::Event& event);
  void take_token(size_t index, const engine::Event& event);
  void take_answer(size_t index, const engine::Event& event);
  void end(size_t index, EndReason reason, const engine::RequestStats& stats);
  void take_news(size_t index);
  void cancel_all();

  engine::Engine& engine_;
  const text::Tokenizer& tokenizer_;
  const GenerateHooks& hooks_;
  std::vector<Pending> requests_;
  std::vector<Stream> streams_;
  size_t submitted_ = 0;                  // requests_[0, submitted_) are in the engine or done
  std::map<SequenceId, size_t> running_;  // first stream of each request
  size_t streams_open_ = 0;
  uint64_t prompt_tokens_ = 0;
  uint64_t prompt_tokens_before_ = 0;  // the engine's count when this run began
};

}  // namespace kvasir::api
