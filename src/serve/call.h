// One request for completions, from its body to its answer, in the words of one dialect. The engine
// works on requests(); what comes back is fed in here, and out come the bytes to send.
//
//   begin()  score()*  part()*  end() or whole()
//
// Everything is validated when a call is made: nothing in the request can make it fail later.
//
// Thread: one at a time. Allocates: every call.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/service.h"
#include "serve/model_info.h"
#include "serve/parameters.h"
#include "serve/totals.h"

namespace kvasir::serve {

class Call {
 public:
  virtual ~Call() = default;
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // One per prompt; each may have several choices.
  const std::vector<api::GenerateRequest>& requests() const { return requests_; }
  // As server-sent events: begin, part and end return what to send now. Otherwise they return
  // nothing, and whole() has the answer.
  bool streams() const { return parameters_.stream; }

  std::string begin();
  void score(size_t request, const api::PromptScore& score);
  std::string part(size_t request, const api::AnswerPart& part);
  std::string end();
  // Requires: every choice has ended, or failed().
  http::Response whole();

  // An answer failed, and so the call: what still runs for it may be cancelled.
  bool failed() const { return failure_.has_value(); }

 protected:
  struct Setup {
    const ModelInfo& model;  // must outlive the call
    std::string id;
    Parameters parameters;
    std::vector<api::GenerateRequest> requests;
  };
  explicit Call(Setup setup);

  // One choice of one request. Text, tokens and details are kept only when they are not streamed.
  struct Answer {
    size_t request = 0;
    std::string text;
    std::vector<TokenId> tokens;
    std::vector<api::TokenDetail> details;
    uint64_t token_count = 0;
    std::optional<api::Ending> ending;
  };

  const ModelInfo& model() const { return model_; }
  const text::Tokenizer& tokenizer() const { return *model_.tokenizer; }
  const Parameters& parameters() const { return parameters_; }
  const std::string& id() const { return id_; }
  // The choices of the first request, of the second ...
  const std::vector<Answer>& answers() const { return answers_; }
  const std::vector<api::TokenDetail>& scores(size_t request) const { return scores_[request]; }
  bool all_ended() const;

  // Of what has ended.
  Totals totals() const;

 private:
  virtual std::string stream_begin() = 0;
  virtual std::string stream_part(size_t answer, const api::AnswerPart& part) = 0;
  virtual std::string stream_end() = 0;
  virtual boost::json::value whole_body() = 0;

  const ModelInfo& model_;
  std::string id_;
  Parameters parameters_;
  std::vector<api::GenerateRequest> requests_;
  std::vector<Answer> answers_;
  std::vector<std::vector<api::TokenDetail>> scores_;  // by request; [i] is of token i + 1
  std::optional<ApiError> failure_;
};

// POST /v1/chat/completions, /v1/completions; llama.cpp's /completion and /infill. `model` must
// outlive the call.
ApiResult<std::unique_ptr<Call>> parse_chat(const ModelInfo& model, const http::Request& request);
ApiResult<std::unique_ptr<Call>> parse_completion(const ModelInfo& model,
                                                  const http::Request& request);
ApiResult<std::unique_ptr<Call>> parse_llama_completion(const ModelInfo& model,
                                                        const http::Request& request);
ApiResult<std::unique_ptr<Call>> parse_infill(const ModelInfo& model, const http::Request& request);

// For the dialects.
std::string event_of(const boost::json::value& value);      // "data: ...\n\n"
std::string_view finish_reason(const api::Ending& ending);  // "stop", "length"
boost::json::value stop_reason(const api::Ending& ending);  // the string, the token id, or null

}  // namespace kvasir::serve
