// One answer on its way from tokens to text: detokenizing, stop strings, details of tokens.
//
// Thread: one owner. Allocates: freely.
#pragma once

#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "api/llm.h"
#include "api/stop_matcher.h"
#include "text/detokenizer.h"

namespace kvasir::api {

// How an answer ended.
struct Ending {
  EndReason reason = EndReason::kLength;
  // With kStop: the stop string or stop token of the request that ended it; nothing: the model did.
  std::variant<std::monostate, std::string, TokenId> stopped_by;
  engine::RequestStats stats;
};

// What became known of one answer since the last part. The text may lag behind the tokens: bytes of
// unfinished characters and beginnings of stop strings are held back.
struct AnswerPart {
  uint32_t choice = 0;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<TokenDetail> details;  // one per token, if logprobs were asked for
  std::optional<Ending> ending;      // the last part of this choice
};

class AnswerStream {
 public:
  // `tokenizer` must outlive the stream.
  AnswerStream(const text::Tokenizer& tokenizer, const GenerateRequest& request, uint32_t choice);

  // Takes the next token of the answer. After stopped() nothing is taken any more.
  void push(const engine::Event& event);
  void push(TokenId token);  // without details
  // A stop string has appeared.
  bool stopped() const { return stops_.matched(); }
  // The answer is over. `reason` counts where no stop string ended it.
  void end(EndReason reason, const engine::RequestStats& stats);
  bool ended() const { return ended_; }

  bool has_news() const { return !part_.tokens.empty() || part_.ending || !part_.text.empty(); }
  // What became known since the last call.
  AnswerPart take();

 private:
  void emit(std::string_view text);

  std::vector<TokenId> stop_tokens_;
  bool wants_details_;
  bool keeps_stop_;
  text::Detokenizer detokenizer_;
  StopMatcher stops_;
  std::optional<TokenId> last_token_;
  AnswerPart part_;
  bool ended_ = false;
};

// How the engine is asked for it. `end_of_generation`: the vocabulary's.
engine::Request engine_request(const GenerateRequest& request,
                               const std::vector<TokenId>& end_of_generation);

// Error: the first thing wrong with a request that the engine does not look at.
base::Status check_request(const GenerateRequest& request);

EndReason end_reason(engine::FinishReason reason);

}  // namespace kvasir::api
