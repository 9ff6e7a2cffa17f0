// POST /v1/chat/completions.
#include <utility>

#include "serve/generate.h"
#include "serve/logprobs.h"
#include "serve/messages.h"
#include "serve/openai_call.h"
#include "serve/unsupported.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

class ChatCall final : public OpenAiCall {
 public:
  explicit ChatCall(Setup setup)
      : OpenAiCall(std::move(setup), {.id_prefix = "chatcmpl-",
                                      .object = "chat.completion",
                                      .chunk = "chat.completion.chunk"}) {}

  static ApiResult<std::unique_ptr<Call>> parse(const ModelInfo& model,
                                                const http::Request& request);

 private:
  std::string stream_begin() override;
  std::string stream_part(size_t answer, const api::AnswerPart& part) override;
  json::value whole_body() override;

  json::value logprobs_json(const std::vector<TokenId>& tokens,
                            const std::vector<api::TokenDetail>& details) const;
};

json::value ChatCall::logprobs_json(const std::vector<TokenId>& tokens,
                                    const std::vector<api::TokenDetail>& details) const {
  if (!parameters().logprobs) return nullptr;
  json::array content;
  content.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    content.push_back(chat_logprob(tokenizer(), tokens[i], details[i]));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

std::string ChatCall::stream_begin() {
  std::string events;
  for (size_t i = 0; i < answers().size(); ++i) {
    events += choice_event({{"index", i},
                            {"delta", {{"role", "assistant"}, {"content", ""}}},
                            {"logprobs", nullptr},
                            {"finish_reason", nullptr}});
  }
  return events;
}

std::string ChatCall::stream_part(size_t answer, const api::AnswerPart& part) {
  std::string events;
  const bool has_logprobs = parameters().logprobs && !part.tokens.empty();
  if (!part.text.empty() || has_logprobs) {
    events += choice_event({{"index", answer},
                            {"delta", {{"content", part.text}}},
                            {"logprobs", logprobs_json(part.tokens, part.details)},
                            {"finish_reason", nullptr}});
  }
  if (part.ending) {
    events += choice_event({{"index", answer},
                            {"delta", json::object()},
                            {"logprobs", nullptr},
                            {"finish_reason", finish_reason(*part.ending)},
                            {"stop_reason", stop_reason(*part.ending)}});
  }
  return events;
}

json::value ChatCall::whole_body() {
  json::array choices;
  for (const Answer& answer : answers()) {
    choices.push_back(
        {{"index", choices.size()},
         {"message", {{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}}},
         {"logprobs", logprobs_json(answer.tokens, answer.details)},
         {"finish_reason", finish_reason(*answer.ending)},
         {"stop_reason", stop_reason(*answer.ending)}});
  }
  return body_of(std::move(choices));
}

ApiResult<std::unique_ptr<Call>> ChatCall::parse(const ModelInfo& model,
                                                 const http::Request& request) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  RETURN_IF_ERROR(check_supported(body, Dialect::kChat));
  ASSIGN_OR_RETURN(Parameters parameters,
                   read_parameters(body, Dialect::kChat, model.vocab_size()));
  ASSIGN_OR_RETURN(const auto messages, read_messages(model, body));
  ASSIGN_OR_RETURN(text::RenderedChat chat,
                   render_chat(model, messages, parameters.add_generation_prompt));
  std::vector<std::vector<TokenId>> prompts;
  prompts.push_back(std::move(chat.ids));
  ASSIGN_OR_RETURN(auto requests, make_requests(parameters, std::move(prompts),
                                                {.model = model,
                                                 .caller = request.caller,
                                                 .dialect = Dialect::kChat,
                                                 .prompt_param = "messages"}));
  return std::make_unique<ChatCall>(Setup{.model = model,
                                          .id = request.id,
                                          .parameters = std::move(parameters),
                                          .requests = std::move(requests)});
}

}  // namespace

ApiResult<std::unique_ptr<Call>> parse_chat(const ModelInfo& model, const http::Request& request) {
  return ChatCall::parse(model, request);
}

}  // namespace kvasir::serve
