// POST /v1/completions.
#include <algorithm>
#include <span>
#include <utility>

#include "api/token_text.h"
#include "base/check.h"
#include "serve/generate.h"
#include "serve/logprobs.h"
#include "serve/openai_call.h"
#include "serve/prompts.h"
#include "serve/unsupported.h"
#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

class CompletionCall final : public OpenAiCall {
 public:
  CompletionCall(Setup setup, std::vector<std::string> echoes);

  static ApiResult<std::unique_ptr<Call>> parse(const ModelInfo& model,
                                                const http::Request& request);

 private:
  // How far the text of one answer has been written.
  struct Progress {
    bool begun = false;
    size_t echo_characters = 0;
    api::CharacterCounter counter;
  };
  // What an answer goes on with.
  struct Piece {
    std::string_view text;
    std::span<const TokenId> tokens;
    std::span<const api::TokenDetail> details;
    const api::Ending* ending = nullptr;
  };

  std::string stream_begin() override { return {}; }  // the echo waits for its log probabilities
  std::string stream_part(size_t answer, const api::AnswerPart& part) override;
  json::value whole_body() override;

  json::object choice_json(size_t answer, const Piece& piece, Progress& progress) const;
  void add_echo(size_t request, CompletionLogprobs& logprobs) const;
  Progress fresh_progress() const { return {.counter = {tokenizer(), /*at_start=*/false}}; }
  std::vector<size_t> chosen_answers() const;

  std::vector<std::string> echoes_;  // by request: what its answers begin with; none: empty
  std::vector<Progress> progress_;   // by answer
};

CompletionCall::CompletionCall(Setup setup, std::vector<std::string> echoes)
    : OpenAiCall(std::move(setup),
                 {.id_prefix = "cmpl-", .object = "text_completion", .chunk = "text_completion"}),
      echoes_(std::move(echoes)),
      progress_(answers().size(), fresh_progress()) {}

double mean_logprob(const std::vector<api::TokenDetail>& details) {
  double sum = 0.0;
  for (const api::TokenDetail& detail : details) sum += static_cast<double>(detail.logprob);
  return sum / static_cast<double>(std::max<size_t>(details.size(), 1));
}

// The prompt's tokens: the first has no probability, the others have been scored.
void CompletionCall::add_echo(size_t request, CompletionLogprobs& logprobs) const {
  const std::vector<TokenId>& prompt = requests()[request].prompt;
  const std::vector<api::TokenDetail>& details = scores(request);
  CHECK(details.size() + 1 == prompt.size());
  api::CharacterCounter counter(tokenizer(), /*at_start=*/true);
  for (size_t i = 0; i < prompt.size(); ++i) {
    logprobs.add(prompt[i], i == 0 ? nullptr : &details[i - 1], counter.characters());
    counter.push(prompt[i]);
  }
}

// One entry of "choices". The first piece of an answer brings the echo.
json::object CompletionCall::choice_json(size_t answer, const Piece& piece,
                                         Progress& progress) const {
  const size_t request = answers()[answer].request;
  const bool wants_logprobs = parameters().logprobs_count.has_value();
  const bool is_first = !std::exchange(progress.begun, true);
  const bool echoes = parameters().echo && is_first;
  std::string text;
  CompletionLogprobs logprobs(tokenizer());
  if (echoes) {
    text = echoes_[request];
    progress.echo_characters = count_characters(text);
    if (wants_logprobs) add_echo(request, logprobs);
  }
  text += piece.text;
  if (wants_logprobs) {
    for (size_t i = 0; i < piece.tokens.size(); ++i) {
      logprobs.add(piece.tokens[i], &piece.details[i],
                   progress.echo_characters + progress.counter.characters());
      progress.counter.push(piece.tokens[i]);
    }
  }
  json::object choice{{"index", answer},
                      {"text", std::move(text)},
                      {"logprobs", nullptr},
                      {"finish_reason", nullptr}};
  if (wants_logprobs) choice["logprobs"] = logprobs.take();
  if (parameters().return_token_ids) {
    choice["token_ids"] = json::array(piece.tokens.begin(), piece.tokens.end());
    if (is_first) choice["prompt_token_ids"] = json::value_from(requests()[request].prompt);
  }
  if (piece.ending == nullptr) return choice;
  choice["finish_reason"] = finish_reason(*piece.ending);
  choice["stop_reason"] = stop_reason(*piece.ending);
  return choice;
}

std::string CompletionCall::stream_part(size_t answer, const api::AnswerPart& part) {
  Progress& progress = progress_[answer];
  const bool tells_tokens = parameters().logprobs_count || parameters().return_token_ids;
  const bool has_tokens = tells_tokens && !part.tokens.empty();
  const bool has_echo = parameters().echo && !progress.begun;
  if (part.text.empty() && !has_tokens && !has_echo && !part.ending) return {};
  const Piece piece{.text = part.text,
                    .tokens = part.tokens,
                    .details = part.details,
                    .ending = part.ending ? &*part.ending : nullptr};
  return choice_event(choice_json(answer, piece, progress));
}

// All answers; or of every request's best_of the n best, which are counted anew.
std::vector<size_t> CompletionCall::chosen_answers() const {
  const auto choices = static_cast<size_t>(parameters().choices);
  std::vector<size_t> chosen;
  size_t first = 0;
  for (const api::GenerateRequest& request : requests()) {
    std::vector<std::pair<double, size_t>> ranked;  // how bad it is, which it is
    for (size_t i = first; i < first + request.choices; ++i) {
      ranked.emplace_back(request.choices > choices ? -mean_logprob(answers()[i].details) : 0.0, i);
    }
    std::ranges::sort(ranked);
    for (size_t i = 0; i < choices; ++i) chosen.push_back(ranked[i].second);
    first += request.choices;
  }
  return chosen;
}

json::value CompletionCall::whole_body() {
  json::array choices;
  for (const size_t index : chosen_answers()) {
    const Answer& answer = answers()[index];
    const Piece piece{.text = answer.text,
                      .tokens = answer.tokens,
                      .details = answer.details,
                      .ending = &*answer.ending};
    json::object choice = choice_json(index, piece, progress_[index]);
    choice["index"] = choices.size();
    choices.push_back(std::move(choice));
  }
  return body_of(std::move(choices));
}

// With a suffix, the prompt is the text in front of a gap.
ApiStatus put_before_suffix(const ModelInfo& model, const json::value& suffix, bool echo,
                            std::vector<Prompt>& prompts) {
  ASSIGN_OR_RETURN(const std::string text, read_string(suffix, "suffix"));
  if (text.empty()) return {};
  if (echo) return invalid("echo", "'echo' and 'suffix' do not go together; leave one out.");
  for (Prompt& prompt : prompts) {
    const Gap gap{
        .prefix = prompt.text, .suffix = text, .prefix_param = "prompt", .suffix_param = "suffix"};
    ASSIGN_OR_RETURN(GapPrompt whole, encode_gap(model, gap, std::nullopt));
    prompt.tokens = std::move(whole.tokens);
  }
  return {};
}

ApiResult<std::unique_ptr<Call>> CompletionCall::parse(const ModelInfo& model,
                                                       const http::Request& request) {
  ASSIGN_OR_RETURN(const json::object body, parse_object(request.body));
  RETURN_IF_ERROR(check_model(model, body));
  RETURN_IF_ERROR(check_supported(body, Dialect::kCompletion));
  ASSIGN_OR_RETURN(Parameters parameters,
                   read_parameters(body, Dialect::kCompletion, model.vocab_size()));
  ASSIGN_OR_RETURN(std::vector<Prompt> prompts, read_prompts(model, body));
  if (const json::value* suffix = find(body, "suffix")) {
    RETURN_IF_ERROR(put_before_suffix(model, *suffix, parameters.echo, prompts));
  }
  std::vector<std::vector<TokenId>> tokens;
  std::vector<std::string> echoes;
  for (Prompt& prompt : prompts) {
    tokens.push_back(std::move(prompt.tokens));
    if (parameters.echo) echoes.push_back(std::move(prompt.text));
  }
  ASSIGN_OR_RETURN(auto requests, make_requests(parameters, std::move(tokens),
                                                {.model = model,
                                                 .caller = request.caller,
                                                 .dialect = Dialect::kCompletion,
                                                 .prompt_param = "prompt"}));
  Setup setup{.model = model,
              .id = request.id,
              .parameters = std::move(parameters),
              .requests = std::move(requests)};
  return std::make_unique<CompletionCall>(std::move(setup), std::move(echoes));
}

}  // namespace

ApiResult<std::unique_ptr<Call>> parse_completion(const ModelInfo& model,
                                                  const http::Request& request) {
  return CompletionCall::parse(model, request);
}

}  // namespace kvasir::serve
