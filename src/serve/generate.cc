#include "serve/generate.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <limits>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/digest.h"

namespace kvasir::serve {
namespace {

constexpr uint32_t kCompletionTokensUsual = 16;  // as OpenAI documents it

// How long an answer may become.
struct AnswerLength {
  std::optional<int64_t> wanted;  // by the field `param`; nullopt: what fits, `usual` at most
  std::string_view param;
  uint32_t usual = std::numeric_limits<uint32_t>::max();
};

AnswerLength answer_length(const Parameters& parameters, Dialect dialect) {
  AnswerLength length{.wanted = parameters.max_tokens, .param = "max_tokens"};
  if (dialect == Dialect::kLlama) {
    length.param = "n_predict";
    if (parameters.n_predict >= 0) length.wanted = parameters.n_predict;
  } else if (dialect == Dialect::kCompletion) {
    length.usual = kCompletionTokensUsual;
  } else if (parameters.max_completion_tokens) {
    length = {.wanted = parameters.max_completion_tokens, .param = "max_completion_tokens"};
  }
  return length;
}

std::unexpected<ApiError> too_long(std::string_view param, std::string message) {
  return std::unexpected(ApiError{.message = std::move(message),
                                  .param = std::string(param),
                                  .code = "context_length_exceeded"});
}

ApiResult<uint32_t> tokens_to_make(size_t prompt_tokens, const AnswerLength& length,
                                   const Origin& origin) {
  const uint32_t context = origin.model.tokens_max;
  if (prompt_tokens == 0) {
    return invalid(std::string(origin.prompt_param), "The prompt is empty; give at least a token.");
  }
  if (length.wanted) {
    if (prompt_tokens + static_cast<uint64_t>(*length.wanted) <= context) {
      return static_cast<uint32_t>(*length.wanted);
    }
    if (prompt_tokens < context) {
      return too_long(length.param,
                      fmt::format("The prompt has {} tokens and {} may be generated, together more "
                                  "than the context of {}; ask for fewer or shorten the prompt.",
                                  prompt_tokens, *length.wanted, context));
    }
  }
  if (prompt_tokens >= context) {
    return too_long(origin.prompt_param,
                    fmt::format("The prompt has {} tokens, which leaves no room for an answer in "
                                "the context of {}; shorten it.",
                                prompt_tokens, context));
  }
  return std::min(length.usual, context - static_cast<uint32_t>(prompt_tokens));
}

uint64_t random_seed() {
  uint64_t seed = 0;
  CHECK(getrandom(&seed, sizeof(seed), 0) == static_cast<ssize_t>(sizeof(seed)));
  return seed >> 1;  // so that a client can send it back as an int64
}

uint64_t seed_of(const Parameters& parameters, Dialect dialect) {
  // llama.cpp's clients write its "random" as -1 or as the same in 32 bits.
  const bool is_random =
      !parameters.seed ||
      (dialect == Dialect::kLlama && (*parameters.seed == -1 || *parameters.seed == 0xFFFF'FFFF));
  return is_random ? random_seed() : static_cast<uint64_t>(*parameters.seed);
}

sample::SamplingParams sampling_of(const Parameters& parameters) {
  return {.temperature = static_cast<float>(parameters.temperature),
          .top_k = static_cast<uint32_t>(std::max<int64_t>(parameters.top_k, 0)),
          .top_p = static_cast<float>(parameters.top_p),
          .min_p = static_cast<float>(parameters.min_p),
          .repetition_penalty = static_cast<float>(parameters.repetition_penalty),
          .presence_penalty = static_cast<float>(parameters.presence_penalty),
          .frequency_penalty = static_cast<float>(parameters.frequency_penalty),
          .logit_bias = parameters.logit_bias};
}

// What all prompts of a call have in common.
api::GenerateRequest common_request(const Parameters& parameters, const Origin& origin) {
  api::GenerateRequest request{.sampling = sampling_of(parameters),
                               .stop = parameters.stop,
                               .keeps_stop = parameters.keeps_stop,
                               .stop_tokens = parameters.stop_tokens,
                               .ignore_eos = parameters.ignore_eos,
                               .min_tokens = static_cast<uint32_t>(parameters.min_tokens),
                               .domain = cache_domain(origin.caller, parameters.cache_salt),
                               .reads_cache = parameters.cache_prompt,
                               .priority = static_cast<int32_t>(-parameters.priority),
                               .tenant = origin.caller.tenant};
  request.choices = static_cast<uint32_t>(parameters.best_of.value_or(parameters.choices));
  const bool ranks = parameters.best_of.value_or(0) > parameters.choices;
  const int64_t alternatives = parameters.top_logprobs + parameters.n_probs +
                               parameters.logprobs_count.value_or(0);  // one per dialect
  request.logprobs = parameters.logprobs || parameters.logprobs_count || ranks || alternatives > 0;
  request.top_logprobs = static_cast<uint32_t>(alternatives);
  // A prompt's own log probabilities need all of its rows, so nothing of it may come from the
  // cache.
  request.score_prompt = parameters.echo && parameters.logprobs_count.has_value();
  if (request.score_prompt) request.reads_cache = false;
  return request;
}

// Log probabilities are held in memory until an answer is whole; those of a prompt always are.
ApiStatus check_logprobs(const Parameters& parameters,
                         const std::vector<api::GenerateRequest>& requests) {
  constexpr uint64_t kEntriesMax = 1'000'000;
  uint64_t entries = 0;
  for (const api::GenerateRequest& request : requests) {
    if (!request.logprobs) continue;
    uint64_t tokens = parameters.stream ? 0 : uint64_t{request.max_tokens} * request.choices;
    if (request.score_prompt) tokens += request.prompt.size();
    entries += tokens * (1 + request.top_logprobs);
  }
  if (entries <= kEntriesMax) return {};
  return invalid(
      "logprobs",
      fmt::format("Up to {} log probabilities would be held, more than {}; ask for fewer "
                  "tokens, answers or alternatives at a time.",
                  entries, kEntriesMax));
}

}  // namespace

ApiResult<std::vector<api::GenerateRequest>> make_requests(
    const Parameters& parameters, std::vector<std::vector<TokenId>> prompts, const Origin& origin) {
  const AnswerLength length = answer_length(parameters, origin.dialect);
  const api::GenerateRequest common = common_request(parameters, origin);
  std::vector<api::GenerateRequest> requests;
  requests.reserve(prompts.size());
  for (std::vector<TokenId>& prompt : prompts) {
    api::GenerateRequest& request = requests.emplace_back(common);
    ASSIGN_OR_RETURN(request.max_tokens, tokens_to_make(prompt.size(), length, origin));
    request.prompt = std::move(prompt);
    // Equal prompts of one call shall not have equal answers, unless a seed is given.
    request.sampling.seed = seed_of(parameters, origin.dialect);
  }
  RETURN_IF_ERROR(check_logprobs(parameters, requests));
  return requests;
}

kv::CacheDomain cache_domain(const http::Caller& caller, std::string_view salt) {
  kv::CacheDomain domain;
  for (size_t i = 0; i < sizeof(caller.tenant); ++i) {
    domain.tenant[i] = static_cast<uint8_t>(caller.tenant >> (8 * i));
  }
  if (salt.empty()) return domain;
  base::Sha256 hash;
  hash.update(std::as_bytes(std::span(domain.tenant)));
  hash.update(std::as_bytes(std::span(salt)));
  domain.adapter = hash.finish();
  return domain;
}

}  // namespace kvasir::serve
