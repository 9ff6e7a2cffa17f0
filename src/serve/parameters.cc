#include "serve/parameters.h"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <utility>

#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;
using P = Parameters;

constexpr uint8_t kChat = static_cast<uint8_t>(Dialect::kChat);
constexpr uint8_t kCompletion = static_cast<uint8_t>(Dialect::kCompletion);
constexpr uint8_t kLlama = static_cast<uint8_t>(Dialect::kLlama);
constexpr uint8_t kOpenAi = kChat + kCompletion;
constexpr uint8_t kAll = kOpenAi + kLlama;

constexpr double kInt32Max = std::numeric_limits<int32_t>::max();
// Bounds that a double can not hold stand for those of an int64.
constexpr double kInt64Min = -9223372036854775808.0;
constexpr double kInt64Max = 9223372036854775808.0;

constexpr size_t kListedStringMax = 1024;  // characters of a stop string or a field's name

constexpr ParameterSpec kParameters[] = {
    {"temperature", kOpenAi, &P::temperature, 0, 2, 1,
     "How freely tokens are drawn; 0 always takes the most likely one."},
    {"temperature", kLlama, &P::temperature, 0, 2, 0.8,
     "How freely tokens are drawn; 0 always takes the most likely one."},
    {"top_p", kOpenAi, &P::top_p, 1e-6, 1, 1,
     "Draw from the most likely tokens that together have this probability."},
    {"top_p", kLlama, &P::top_p, 1e-6, 1, 0.95,
     "Draw from the most likely tokens that together have this probability."},
    {"top_k", kOpenAi, &P::top_k, -1, kInt32Max, 0,
     "Draw from so many of the most likely tokens; 0 or -1: from all."},
    {"top_k", kLlama, &P::top_k, -1, kInt32Max, 40,
     "Draw from so many of the most likely tokens; 0 or -1: from all."},
    {"min_p", kOpenAi, &P::min_p, 0, 0.999, 0,
     "Leave out tokens less likely than this share of the most likely one."},
    {"min_p", kLlama, &P::min_p, 0, 0.999, 0.05,
     "Leave out tokens less likely than this share of the most likely one."},
    {"repetition_penalty", kOpenAi, &P::repetition_penalty, 0.01, 100, 1,
     "Above 1: tokens of prompt and answer become less likely to come again."},
    {"repeat_penalty", kLlama, &P::repetition_penalty, 0.01, 100, 1,
     "Above 1: tokens of prompt and answer become less likely to come again."},
    {"presence_penalty", kAll, &P::presence_penalty, -2, 2, 0,
     "Subtracted from the logits of tokens that the answer has."},
    {"frequency_penalty", kAll, &P::frequency_penalty, -2, 2, 0,
     "Subtracted from the logits of the answer's tokens once for each time they occur."},
    {"seed",
     kAll,
     &P::seed,
     kInt64Min,
     kInt64Max,
     {},
     "The same request with the same seed has the same answer. Absent: a random one; so is -1 "
     "for the endpoints of llama.cpp."},
    {"logit_bias",
     kAll,
     &P::logit_bias,
     0,
     1024,
     {},
     "Added to the logits of tokens, by id: -100 to 100."},
    {"n", kOpenAi, &P::choices, 1, 16, 1, "Answers to each prompt."},
    {"best_of",
     kCompletion,
     &P::best_of,
     1,
     16,
     {},
     "Make so many answers and return the n with the highest mean log probability."},
    {"max_tokens",
     kOpenAi,
     &P::max_tokens,
     0,
     kInt32Max,
     {},
     "Tokens of an answer at most. Absent: chat has the rest of the context, completions 16."},
    {"max_completion_tokens",
     kChat,
     &P::max_completion_tokens,
     0,
     kInt32Max,
     {},
     "The newer name of max_tokens; counts if both are given."},
    {"n_predict", kLlama, &P::n_predict, -1, kInt32Max, -1,
     "Tokens of an answer at most; -1: the rest of the context."},
    {"min_tokens", kOpenAi, &P::min_tokens, 0, kInt32Max, 0,
     "No end token is chosen before so many tokens."},
    {"stop", kAll, &P::stop, 0, 16, {}, "Texts that end the answer, and are left out of it."},
    {"stop_token_ids", kAll, &P::stop_tokens, 0, 128, {}, "Tokens that end the answer."},
    {"include_stop_str_in_output", kOpenAi, &P::keeps_stop, 0, 1, 0,
     "The text that ended the answer stays in it."},
    {"ignore_eos", kAll, &P::ignore_eos, 0, 1, 0, "End tokens of the model do not end the answer."},
    {"logprobs", kChat, &P::logprobs, 0, 1, 0, "Log probabilities of the answer's tokens."},
    {"top_logprobs", kChat, &P::top_logprobs, 0, 20, 0,
     "So many alternatives to each token; needs logprobs."},
    {"logprobs",
     kCompletion,
     &P::logprobs_count,
     0,
     20,
     {},
     "Log probabilities, with so many alternatives to each token; with echo also of the prompt."},
    {"n_probs", kLlama, &P::n_probs, 0, 20, 0,
     "Log probabilities, with so many alternatives to each token; 0: none."},
    {"echo", kCompletion, &P::echo, 0, 1, 0, "The answer begins with the prompt."},
    {"return_tokens", kLlama, &P::return_tokens, 0, 1, 0, "Token ids beside the text."},
    {"return_token_ids", kOpenAi, &P::return_token_ids, 0, 1, 0,
     "Token ids beside the text, the prompt's too."},
    {"response_fields",
     kLlama,
     &P::response_fields,
     0,
     64,
     {},
     "Answer with these fields only; a/b is the field b in a."},
    {"stream", kAll, &P::stream, 0, 1, 0, "Server-sent events as the answer comes."},
    {"stream_options",
     kOpenAi,
     &P::stream_options,
     0,
     0,
     {},
     "include_usage: a last event with the usage; needs stream."},
    {"add_generation_prompt", kChat, &P::add_generation_prompt, 0, 1, 1,
     "The prompt ends with the opening of the assistant's answer."},
    {"cache_prompt", kAll, &P::cache_prompt, 0, 1, 1,
     "May use what is cached of the prompt; false computes all of it."},
    {"priority", kOpenAi, &P::priority, -kInt32Max, kInt32Max, 0, "Lower goes first."},
    {"cache_salt",
     kOpenAi,
     &P::cache_salt,
     1,
     1024,
     {},
     "Shares cached prompts only with requests that have the same salt."},
};

// What reading a value needs beside the value.
struct Source {
  const ParameterSpec& spec;
  const json::value& value;
  size_t vocab_size;
};

int64_t to_int64(double bound) {
  if (bound >= kInt64Max) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(bound);
}

ApiStatus check_entries(const Source& source, size_t count) {
  if (static_cast<double>(count) <= source.spec.max) return {};
  return invalid(std::string(source.spec.name),
                 fmt::format("'{}' has {} entries; give at most {}.", source.spec.name, count,
                             source.spec.max));
}

ApiStatus read(double& target, const Source& source) {
  const NumberRange range{.min = source.spec.min, .max = source.spec.max};
  ASSIGN_OR_RETURN(target, read_number(source.value, source.spec.name, range));
  return {};
}

ApiStatus read(int64_t& target, const Source& source) {
  const IntegerRange range{.min = to_int64(source.spec.min), .max = to_int64(source.spec.max)};
  ASSIGN_OR_RETURN(target, read_integer(source.value, source.spec.name, range));
  return {};
}

ApiStatus read(std::optional<int64_t>& target, const Source& source) {
  return read(target.emplace(), source);
}

ApiStatus read(bool& target, const Source& source) {
  ASSIGN_OR_RETURN(target, read_boolean(source.value, source.spec.name));
  return {};
}

ApiStatus read(std::string& target, const Source& source) {
  ASSIGN_OR_RETURN(target, read_string(source.value, source.spec.name));
  const auto characters = static_cast<double>(count_characters(target));
  if (characters >= source.spec.min && characters <= source.spec.max) return {};
  return invalid(std::string(source.spec.name),
                 fmt::format("'{}' must have {} to {} characters.", source.spec.name,
                             source.spec.min, source.spec.max));
}

ApiStatus read(std::vector<std::string>& target, const Source& source) {
  const std::string_view name = source.spec.name;
  const json::array* list = source.value.if_array();
  if (list == nullptr && !source.value.is_string()) {
    return invalid(std::string(name),
                   fmt::format("'{}' must be a string or a list of strings.", name));
  }
  const std::span<const json::value> entries =
      list == nullptr ? std::span(&source.value, 1) : std::span(list->data(), list->size());
  RETURN_IF_ERROR(check_entries(source, entries.size()));
  for (const json::value& entry : entries) {
    const std::string place =
        list == nullptr ? std::string(name) : fmt::format("{}[{}]", name, target.size());
    ASSIGN_OR_RETURN(std::string text, read_string(entry, place));
    const size_t characters = count_characters(text);
    const size_t least = source.spec.listed_string_min();
    if (characters < least || characters > kListedStringMax) {
      return invalid(place, fmt::format("'{}' must have {} to {} characters.", place, least,
                                        kListedStringMax));
    }
    target.push_back(std::move(text));
  }
  return {};
}

ApiStatus read(std::vector<TokenId>& target, const Source& source) {
  ASSIGN_OR_RETURN(target, read_tokens(source.value, source.spec.name, source.vocab_size));
  return check_entries(source, target.size());
}

// The id that a field's name writes. nullopt: it writes none of the vocabulary.
std::optional<TokenId> token_named(std::string_view name, size_t vocab_size) {
  uint32_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error != std::errc() || end != name.data() + name.size() || id >= vocab_size) {
    return std::nullopt;
  }
  return static_cast<TokenId>(id);
}

ApiStatus add_bias(std::vector<sample::LogitBias>& target, std::optional<TokenId> token,
                   const json::value& value) {
  constexpr double kBiasMax = 100.0;
  if (!token) return invalid("logit_bias", "'logit_bias' names a token that does not exist.");
  ASSIGN_OR_RETURN(const double bias,
                   read_number(value, "logit_bias", {.min = -kBiasMax, .max = kBiasMax}));
  target.push_back({.token = *token, .bias = static_cast<float>(bias)});
  return {};
}

// llama.cpp also writes [[id, bias], ...], where `false` stands for never.
ApiStatus read_bias_pairs(std::vector<sample::LogitBias>& target, const Source& source) {
  const json::value never = -100;
  for (const json::value& entry : source.value.get_array()) {
    const json::array* pair = entry.if_array();
    if (pair == nullptr || pair->size() != 2) {
      return invalid("logit_bias", "'logit_bias' must be an object or a list of [id, bias].");
    }
    const IntegerRange ids{.min = 0, .max = static_cast<int64_t>(source.vocab_size) - 1};
    ASSIGN_OR_RETURN(const int64_t id, read_integer((*pair)[0], "logit_bias", ids));
    const bool is_never = (*pair)[1].is_bool() && !(*pair)[1].get_bool();
    RETURN_IF_ERROR(add_bias(target, static_cast<TokenId>(id), is_never ? never : (*pair)[1]));
  }
  return {};
}

ApiStatus read(std::vector<sample::LogitBias>& target, const Source& source) {
  if (const json::array* pairs = source.value.if_array()) {
    RETURN_IF_ERROR(check_entries(source, pairs->size()));
    return read_bias_pairs(target, source);
  }
  const json::object* biases = source.value.if_object();
  if (biases == nullptr) {
    return invalid("logit_bias", "'logit_bias' must be an object or a list of [id, bias].");
  }
  RETURN_IF_ERROR(check_entries(source, biases->size()));
  for (const json::key_value_pair& bias : *biases) {
    RETURN_IF_ERROR(add_bias(target, token_named(bias.key(), source.vocab_size), bias.value()));
  }
  return {};
}

ApiStatus read(StreamOptions& target, const Source& source) {
  const json::object* options = source.value.if_object();
  if (options == nullptr) return invalid("stream_options", "'stream_options' must be an object.");
  target.given = true;
  const json::value* usage = find(*options, "include_usage");
  if (usage == nullptr) return {};
  ASSIGN_OR_RETURN(target.include_usage, read_boolean(*usage, "stream_options.include_usage"));
  return {};
}

void set_initial(Parameters& values, const ParameterSpec& spec) {
  if (!spec.initial) return;
  if (const auto* number = std::get_if<double Parameters::*>(&spec.target)) {
    values.** number = *spec.initial;
  } else if (const auto* integer = std::get_if<int64_t Parameters::*>(&spec.target)) {
    values.** integer = static_cast<int64_t>(*spec.initial);
  } else if (const auto* boolean = std::get_if<bool Parameters::*>(&spec.target)) {
    values.** boolean = *spec.initial != 0.0;
  }
}

// Fields that must agree.
ApiStatus check_together(const Parameters& values) {
  if (values.stream_options.given && !values.stream) {
    return invalid("stream_options", "'stream_options' needs 'stream' to be true.");
  }
  if (values.top_logprobs > 0 && !values.logprobs) {
    return invalid("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.");
  }
  if (values.best_of && *values.best_of < values.choices) {
    return invalid("best_of", fmt::format("'best_of' is {}, less than 'n', which is {}.",
                                          *values.best_of, values.choices));
  }
  if (values.best_of && *values.best_of > values.choices && values.stream) {
    return invalid("best_of", "'best_of' above 'n' can not be streamed: the best is known last.");
  }
  const std::optional<int64_t> tokens_max =
      values.max_completion_tokens ? values.max_completion_tokens : values.max_tokens;
  if (tokens_max && values.min_tokens > *tokens_max) {
    return invalid("min_tokens", fmt::format("'min_tokens' is {}, more than the {} tokens at most.",
                                             values.min_tokens, *tokens_max));
  }
  return {};
}

}  // namespace

ParameterType ParameterSpec::type() const {
  static constexpr ParameterType kTypes[] = {
      ParameterType::kNumber,  ParameterType::kInteger,     ParameterType::kInteger,
      ParameterType::kBoolean, ParameterType::kString,      ParameterType::kStringOrStrings,
      ParameterType::kTokens,  ParameterType::kTokenBiases, ParameterType::kStreamOptions};
  static_assert(std::size(kTypes) == std::variant_size_v<Target>);
  return kTypes[target.index()];
}

std::span<const ParameterSpec> parameters() {
  return kParameters;
}

ApiResult<Parameters> read_parameters(const json::object& body, Dialect dialect,
                                      size_t vocab_size) {
  Parameters values;
  for (const ParameterSpec& spec : kParameters) {
    if (!spec.is_in(dialect)) continue;
    set_initial(values, spec);
    const json::value* value = find(body, spec.name);
    if (value == nullptr) continue;
    const Source source{.spec = spec, .value = *value, .vocab_size = vocab_size};
    RETURN_IF_ERROR(
        std::visit([&](auto member) { return read(values.*member, source); }, spec.target));
  }
  RETURN_IF_ERROR(check_together(values));
  return values;
}

}  // namespace kvasir::serve
