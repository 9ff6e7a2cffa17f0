// What requests may hold.
#include <algorithm>
#include <limits>
#include <utility>

#include "serve/openapi_schemas.h"
#include "serve/parameters.h"
#include "serve/schema_parts.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;
using schema::any_of;
using schema::constant;
using schema::integer;
using schema::list_of;
using schema::names;
using schema::object_with;
using schema::or_null;
using schema::ref;
using schema::type;

constexpr size_t kStopBytesMax = 1024;
constexpr size_t kExtraFilesMax = 1024;

json::object token_id(const ApiDescription& api) {
  return integer(0, static_cast<int64_t>(api.vocab_size) - 1);
}

json::object number_schema(const ParameterSpec& spec) {
  json::object schema = type("number");
  schema["minimum"] = spec.min;
  schema["maximum"] = spec.max;
  if (spec.initial) schema["default"] = *spec.initial;
  return schema;
}

// The double 2^63 stands for the largest int64.
int64_t whole(double bound) {
  constexpr double kEnd = 9223372036854775808.0;
  return bound >= kEnd ? std::numeric_limits<int64_t>::max() : static_cast<int64_t>(bound);
}

json::object integer_schema(const ParameterSpec& spec) {
  json::object schema = integer(whole(spec.min), whole(spec.max));
  if (spec.initial) schema["default"] = whole(*spec.initial);
  return schema;
}

// {"17": -100}; llama.cpp's endpoints also take [[17, false]].
json::object bias_schema(const ParameterSpec& spec, const ApiDescription& api) {
  const json::object bias{{"type", "number"}, {"minimum", -100}, {"maximum", 100}};
  json::object by_id{{"type", "object"},
                     {"propertyNames", {{"pattern", "^[0-9]+$"}}},
                     {"additionalProperties", bias},
                     {"maxProperties", whole(spec.max)}};
  if (!spec.is_in(Dialect::kLlama)) return by_id;
  json::object pair = list_of(json::object(), 2, 2);
  pair["prefixItems"] = {token_id(api), any_of({bias, json::object{{"const", false}}})};
  return any_of({std::move(by_id), list_of(std::move(pair), 0, static_cast<size_t>(spec.max))});
}

json::object strings_schema(const ParameterSpec& spec) {
  const json::object text{
      {"type", "string"}, {"minLength", spec.listed_string_min()}, {"maxLength", kStopBytesMax}};
  return any_of({text, list_of(text, 0, static_cast<size_t>(spec.max))});
}

json::object parameter_schema(const ParameterSpec& spec, const ApiDescription& api) {
  switch (spec.type()) {
    case ParameterType::kNumber:
      return number_schema(spec);
    case ParameterType::kInteger:
      return integer_schema(spec);
    case ParameterType::kBoolean: {
      json::object schema = type("boolean");
      if (spec.initial) schema["default"] = *spec.initial != 0.0;
      return schema;
    }
    case ParameterType::kString:
      return {{"type", "string"}, {"minLength", whole(spec.min)}, {"maxLength", whole(spec.max)}};
    case ParameterType::kStringOrStrings:
      return strings_schema(spec);
    case ParameterType::kTokens:
      return list_of(token_id(api), 0, static_cast<size_t>(spec.max));
    case ParameterType::kTokenBiases:
      return bias_schema(spec, api);
    case ParameterType::kStreamOptions:
      return object_with({{"include_usage", or_null(type("boolean"))}});
  }
  return {};
}

// Only one model is here, and any other name is refused.
json::object model_schema(const ApiDescription& api) {
  json::object schema = names({"", api.model_id});
  schema["description"] = "The name of the model; may be left out.";
  return or_null(std::move(schema));
}

// The fields of the parameters that a dialect has.
json::object parameter_fields(Dialect dialect, const ApiDescription& api) {
  json::object fields{{"model", model_schema(api)}};
  for (const ParameterSpec& spec : parameters()) {
    if (!spec.is_in(dialect)) continue;
    json::object schema = or_null(parameter_schema(spec, api));
    schema["description"] = spec.meaning;
    fields[spec.name] = std::move(schema);
  }
  return fields;
}

// At least one token of the context is the prompt's.
void bound_by_context(json::object& fields, std::string_view name, const ApiDescription& api) {
  fields.at(name).as_object()["maximum"] = std::max<int64_t>(int64_t{api.tokens_max} - 1, 0);
}

json::object prompt_schema(const ApiDescription& api) {
  const json::object text = type("string");
  json::object tokens = list_of(token_id(api));
  tokens["minItems"] = 1;
  return any_of({text, tokens, list_of(any_of({text, tokens}), 1, api.prompts_max)});
}

json::object messages_schema(const ApiDescription& api) {
  return list_of(ref("Message"), 1, api.messages_max);
}

json::object message_schema() {
  const json::object part =
      object_with({{"type", constant("text")}, {"text", type("string")}}, {"type", "text"});
  json::object parts = list_of(part);
  parts["minItems"] = 1;
  return object_with({{"role", names({"system", "developer", "user", "assistant"})},
                      {"content", any_of({type("string"), parts})}},
                     {"role", "content"});
}

// The same conversation, to be answered or only to be shown as a prompt.
json::object chat_request(const ApiDescription& api, bool answers) {
  json::object fields = parameter_fields(Dialect::kChat, api);
  fields["messages"] = messages_schema(api);
  if (answers) bound_by_context(fields, "max_completion_tokens", api);
  return object_with(std::move(fields), {"messages"});
}

json::object completion_request(const ApiDescription& api) {
  json::object fields = parameter_fields(Dialect::kCompletion, api);
  fields["prompt"] = prompt_schema(api);
  fields["suffix"] = or_null(type("string"));
  bound_by_context(fields, "max_tokens", api);
  return object_with(std::move(fields), {"prompt"});
}

json::object llama_request(const ApiDescription& api) {
  json::object fields = parameter_fields(Dialect::kLlama, api);
  fields["prompt"] = prompt_schema(api);
  bound_by_context(fields, "n_predict", api);
  return object_with(std::move(fields), {"prompt"});
}

json::object infill_request(const ApiDescription& api) {
  json::object fields = parameter_fields(Dialect::kLlama, api);
  for (const char* name : {"input_prefix", "input_suffix", "prompt"}) {
    fields[name] = or_null(type("string"));
  }
  json::object file =
      object_with({{"text", type("string")}, {"filename", or_null(type("string"))}}, {"text"});
  fields["input_extra"] = or_null(list_of(std::move(file), 0, kExtraFilesMax));
  bound_by_context(fields, "n_predict", api);
  return object_with(std::move(fields));
}

// Exactly one of three fields says what is to be tokenized.
json::object tokenize_request(const ApiDescription& api) {
  const json::object flag = or_null(type("boolean"));
  const json::object absent = type("null");
  json::object content = object_with({{"model", model_schema(api)},
                                      {"content", type("string")},
                                      {"prompt", absent},
                                      {"messages", absent},
                                      {"add_special", flag},
                                      {"parse_special", flag},
                                      {"with_pieces", flag}},
                                     {"content"});
  json::object prompt = object_with({{"model", model_schema(api)},
                                     {"prompt", type("string")},
                                     {"content", absent},
                                     {"messages", absent},
                                     {"add_special_tokens", flag},
                                     {"return_token_strs", flag}},
                                    {"prompt"});
  json::object messages = object_with({{"model", model_schema(api)},
                                       {"messages", messages_schema(api)},
                                       {"content", absent},
                                       {"prompt", absent},
                                       {"add_generation_prompt", flag},
                                       {"return_token_strs", flag}},
                                      {"messages"});
  return any_of({std::move(content), std::move(prompt), std::move(messages)});
}

json::object detokenize_request(const ApiDescription& api) {
  return object_with({{"model", model_schema(api)}, {"tokens", list_of(token_id(api))}},
                     {"tokens"});
}

}  // namespace

json::object request_schemas(const ApiDescription& api) {
  return {{"Message", message_schema()},
          {"ChatRequest", chat_request(api, /*answers=*/true)},
          {"RenderRequest", chat_request(api, /*answers=*/false)},
          {"CompletionRequest", completion_request(api)},
          {"LlamaRequest", llama_request(api)},
          {"InfillRequest", infill_request(api)},
          {"TokenizeRequest", tokenize_request(api)},
          {"DetokenizeRequest", detokenize_request(api)}};
}

}  // namespace kvasir::serve
