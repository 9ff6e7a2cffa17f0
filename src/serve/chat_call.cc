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
  // Members for vLLM's return_token_ids; none without it.
  json::object prompt_token_ids() const;
  json::object with_token_ids(json::object choice, const std::vector<TokenId>& tokens) const;
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

json::object ChatCall::prompt_token_ids() const {
  if (!parameters().return_token_ids) return {};
  return {{"prompt_token_ids", json::value_from(requests().front().prompt)}};
}

json::object ChatCall::with_token_ids(json::object choice,
                                      const std::vector<TokenId>& tokens) const {
  if (parameters().return_token_ids) choice["token_ids"] = json::value_from(tokens);
  return choice;
}

std::string ChatCall::stream_begin() {
  std::string events;
  for (size_t i = 0; i < answers().size(); ++i) {
    events += choice_event({{"index", i},
                            {"delta", {{"role", "assistant"}, {"content", ""}}},
                            {"logprobs", nullptr},
                            {"finish_reason", nullptr}},
                           prompt_token_ids());
  }
  return events;
}

std::string ChatCall::stream_part(size_t answer, const api::AnswerPart& part) {
  std::string events;
  const bool tells_tokens = parameters().logprobs || parameters().return_token_ids;
  const bool has_tokens = tells_tokens && !part.tokens.empty();
  if (!part.text.empty() || has_tokens) {
    events += choice_event(with_token_ids({{"index", answer},
                                           {"delta", {{"content", part.text}}},
                                           {"logprobs", logprobs_json(part.tokens, part.details)},
                                           {"finish_reason", nullptr}},
                                          part.tokens));
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
    choices.push_back(with_token_ids(
        {{"index", choices.size()},
         {"message", {{"role", "assistant"}, {"content", answer.text}, {"refusal", nullptr}}},
         {"logprobs", logprobs_json(answer.tokens, answer.details)},
         {"finish_reason", finish_reason(*answer.ending)},
         {"stop_reason", stop_reason(*answer.ending)}},
        answer.tokens));
  }
  json::object body = body_of(std::move(choices));
  const json::object more = prompt_token_ids();
  body.insert(more.begin(), more.end());
  return body;
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
