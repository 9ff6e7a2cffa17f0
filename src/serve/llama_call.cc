// POST /completion and /infill as llama.cpp's server has them.
#include <algorithm>
#include <utility>

#include "serve/call.h"
#include "serve/generate.h"
#include "serve/logprobs.h"
#include "serve/prompts.h"
#include "serve/unsupported.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// Why an answer ended, in llama.cpp's words.
std::string_view stop_type(const api::Ending& ending) {
  if (ending.reason == api::EndReason::kLength) return "limit";
  return std::holds_alternative<std::string>(ending.stopped_by) ? "word" : "eos";
}

std::string_view stopping_word(const api::Ending& ending) {
  const auto* word = std::get_if<std::string>(&ending.stopped_by);
  return word == nullptr ? std::string_view() : *word;
}

// The value at "a/b"; nullptr: there is none.
const json::value* find_path(const json::object& object, std::string_view path) {
  const size_t slash = path.find('/');
  const json::value* value = object.if_contains(path.substr(0, slash));
  if (value == nullptr || slash == std::string_view::npos) return value;
  return value->is_object() ? find_path(value->get_object(), path.substr(slash + 1)) : nullptr;
}

class LlamaCall final : public Call {
 public:
  LlamaCall(Setup setup, bool is_shortened) : Call(std::move(setup)), is_shortened_(is_shortened) {}

  static ApiResult<std::unique_ptr<Call>> parse(const ModelInfo& model,
                                                const http::Request& request, bool infill);

 private:
  std::string stream_begin() override { return {}; }
  std::string stream_part(size_t answer, const api::AnswerPart& part) override;
  std::string stream_end() override { return {}; }
  json::value whole_body() override;

  json::object piece_json(size_t answer, std::string_view text,
                          const std::vector<TokenId>& tokens) const;
  json::object ended_json(size_t answer, std::string_view text) const;
  json::value probabilities_json(const std::vector<TokenId>& tokens,
                                 const std::vector<api::TokenDetail>& details) const;
  json::object settings_json(size_t answer) const;
  json::object only_wanted(json::object body) const;

  bool is_shortened_;  // the prompt
};

// A piece of an answer, and the beginning of the whole.
json::object LlamaCall::piece_json(size_t answer, std::string_view text,
                                   const std::vector<TokenId>& tokens) const {
  const Answer& whole = answers()[answer];
  json::array ids;
  if (parameters().return_tokens) ids = json::array(tokens.begin(), tokens.end());
  return {{"index", whole.request},
          {"content", text},
          {"tokens", std::move(ids)},
          {"stop", whole.ending.has_value()},
          {"tokens_predicted", whole.token_count},
          {"tokens_evaluated", requests()[whole.request].prompt.size()}};
}

json::object LlamaCall::ended_json(size_t answer, std::string_view text) const {
  const Answer& whole = answers()[answer];
  const api::Ending& ending = *whole.ending;
  Totals totals;
  totals.add(ending.stats, /*first=*/true);
  json::object body = piece_json(answer, text, whole.tokens);
  body["model"] = model().id;
  body["system_fingerprint"] = model().system_fingerprint;
  body["stop_type"] = stop_type(ending);
  body["stopping_word"] = stopping_word(ending);
  body["truncated"] = is_shortened_;
  body["tokens_cached"] = ending.stats.tokens_cached;
  body["generation_settings"] = settings_json(answer);
  body["timings"] = totals.timings();
  if (parameters().n_probs > 0 && !streams()) {
    body["completion_probabilities"] = probabilities_json(whole.tokens, whole.details);
  }
  return body;
}

json::value LlamaCall::probabilities_json(const std::vector<TokenId>& tokens,
                                          const std::vector<api::TokenDetail>& details) const {
  json::array entries;
  entries.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    entries.push_back(llama_logprob(tokenizer(), tokens[i], details[i]));
  }
  return entries;
}

json::object LlamaCall::settings_json(size_t answer) const {
  const api::GenerateRequest& request = requests()[answers()[answer].request];
  const Parameters& values = parameters();
  return {{"n_predict", values.n_predict},
          {"seed", static_cast<int64_t>(request.sampling.seed)},
          {"temperature", values.temperature},
          {"top_k", values.top_k},
          {"top_p", values.top_p},
          {"min_p", values.min_p},
          {"repeat_penalty", values.repetition_penalty},
          {"presence_penalty", values.presence_penalty},
          {"frequency_penalty", values.frequency_penalty},
          {"stop", json::value_from(values.stop)},
          {"ignore_eos", values.ignore_eos},
          {"n_probs", values.n_probs},
          {"stream", values.stream}};
}

json::object LlamaCall::only_wanted(json::object body) const {
  if (parameters().response_fields.empty()) return body;
  json::object wanted;
  for (const std::string& path : parameters().response_fields) {
    if (const json::value* value = find_path(body, path)) wanted[path] = *value;
  }
  return wanted;
}

std::string LlamaCall::stream_part(size_t answer, const api::AnswerPart& part) {
  std::string events;
  if (!part.text.empty() || !part.tokens.empty()) {
    json::object piece = piece_json(answer, part.text, part.tokens);
    piece["stop"] = false;
    if (parameters().n_probs > 0) {
      piece["completion_probabilities"] = probabilities_json(part.tokens, part.details);
    }
    events += event_of(piece);
  }
  if (part.ending) events += event_of(only_wanted(ended_json(answer, "")));
  return events;
}

json::value LlamaCall::whole_body() {
  json::array bodies;
  for (size_t i = 0; i < answers().size(); ++i) {
    bodies.push_back(only_wanted(ended_json(i, answers()[i].text)));
  }
  if (bodies.size() == 1) return std::move(bodies.front());
  return bodies;
}

// What an answer leaves of the context.
size_t room_for_prompt(const ModelInfo& model, const Parameters& parameters) {
  constexpr int64_t kAnswerUsual = 128;  // where its length is not said
  const int64_t answer = parameters.n_predict >= 0 ? parameters.n_predict : kAnswerUsual;
  return model.tokens_max - std::min<size_t>(model.tokens_max, static_cast<size_t>(answer));
}

ApiResult<std::unique_ptr<Call>> LlamaCall::parse(const ModelInfo& model,
                                                  const http::Request& request, bool infill) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  RETURN_IF_ERROR(check_supported(body, Dialect::kLlama));
  ASSIGN_OR_RETURN(Parameters parameters,
                   read_parameters(body, Dialect::kLlama, model.vocab_size()));
  std::vector<std::vector<TokenId>> prompts;
  bool is_shortened = false;
  if (infill) {
    ASSIGN_OR_RETURN(const Gap gap, read_gap(body));
    ASSIGN_OR_RETURN(GapPrompt prompt, encode_gap(model, gap, room_for_prompt(model, parameters)));
    prompts.push_back(std::move(prompt.tokens));
    is_shortened = prompt.is_shortened;
  } else {
    ASSIGN_OR_RETURN(std::vector<Prompt> given, read_prompts(model, body));
    for (Prompt& prompt : given) prompts.push_back(std::move(prompt.tokens));
  }
  ASSIGN_OR_RETURN(auto requests,
                   make_requests(parameters, std::move(prompts),
                                 {.model = model,
                                  .caller = request.caller,
                                  .dialect = Dialect::kLlama,
                                  .prompt_param = infill ? "input_prefix" : "prompt"}));
  return std::make_unique<LlamaCall>(Setup{.model = model,
                                           .id = request.id,
                                           .parameters = std::move(parameters),
                                           .requests = std::move(requests)},
                                     is_shortened);
}

}  // namespace

ApiResult<std::unique_ptr<Call>> parse_llama_completion(const ModelInfo& model,
                                                        const http::Request& request) {
  return LlamaCall::parse(model, request, /*infill=*/false);
}

ApiResult<std::unique_ptr<Call>> parse_infill(const ModelInfo& model,
                                              const http::Request& request) {
  return LlamaCall::parse(model, request, /*infill=*/true);
}

}  // namespace kvasir::serve
