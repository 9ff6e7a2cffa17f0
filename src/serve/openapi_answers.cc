// What answers hold.
#include <utility>

#include "kv/statistics.h"
#include "serve/openapi_schemas.h"
#include "serve/schema_parts.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;
using schema::any_of;
using schema::constant;
using schema::count;
using schema::integer;
using schema::list_of;
using schema::names;
using schema::object_with;
using schema::or_null;
using schema::record;
using schema::ref;
using schema::type;

constexpr double kLogprobMin = -9999.0;  // what stands for impossible

json::object error_schema() {
  return record({{"error", record({{"message", type("string")},
                                   {"type", type("string")},
                                   {"param", or_null(type("string"))},
                                   {"code", or_null(type("string"))}})}});
}

json::object usage_schema() {
  return record({{"prompt_tokens", count()},
                 {"completion_tokens", count()},
                 {"total_tokens", count()},
                 {"prompt_tokens_details", record({{"cached_tokens", count()}})},
                 {"completion_tokens_details", record({{"reasoning_tokens", count()}})}});
}

json::object timings_schema() {
  json::object fields;
  for (const char* name : {"cache_n", "prompt_n", "predicted_n"}) fields[name] = count();
  for (const char* name : {"prompt_ms", "prompt_per_token_ms", "prompt_per_second", "predicted_ms",
                           "predicted_per_token_ms", "predicted_per_second"}) {
    fields[name] = {{"type", "number"}, {"minimum", 0}};
  }
  return record(std::move(fields));
}

json::object logprob() {
  return {{"type", "number"}, {"minimum", kLogprobMin}};
}

json::object token_logprob_schema(bool with_top) {
  json::object fields{
      {"token", type("string")}, {"logprob", logprob()}, {"bytes", list_of(integer(0, 255))}};
  if (with_top) fields["top_logprobs"] = list_of(ref("TokenProbability"));
  return record(std::move(fields));
}

json::object completion_logprobs_schema() {
  json::object top{{"type", "object"}, {"additionalProperties", logprob()}};
  return record({{"tokens", list_of(type("string"))},
                 {"token_logprobs", list_of(or_null(logprob()))},
                 {"top_logprobs", list_of(or_null(std::move(top)))},
                 {"text_offset", list_of(count())}});
}

// An answer of OpenAI's: what all have, and its choices. `own`: what the endpoint's choices add.
json::object answer_schema(std::string_view object, json::object own) {
  own["index"] = count();
  own["finish_reason"] = names({"stop", "length"});
  own["stop_reason"] = any_of({type("string"), type("integer"), type("null")});
  json::object choice = record(std::move(own));
  choice["properties"].as_object()["token_ids"] = list_of(count());  // if asked for
  return record({{"id", type("string")},
                 {"object", constant(object)},
                 {"created", count()},
                 {"model", type("string")},
                 {"system_fingerprint", type("string")},
                 {"choices", list_of(std::move(choice))},
                 {"usage", ref("Usage")},
                 {"timings", ref("Timings")}});
}

json::object chat_answer() {
  json::object message = record(
      {{"role", constant("assistant")}, {"content", type("string")}, {"refusal", type("null")}});
  json::object logprobs =
      record({{"content", list_of(ref("TokenLogprob"))}, {"refusal", type("null")}});
  return answer_schema("chat.completion", {{"message", std::move(message)},
                                           {"logprobs", or_null(std::move(logprobs))}});
}

json::object completion_answer() {
  json::object logprobs = or_null(any_of({ref("CompletionLogprobs")}));
  return answer_schema("text_completion",
                       {{"text", type("string")}, {"logprobs", std::move(logprobs)}});
}

// With response_fields any of these may be missing.
json::object llama_answer() {
  return object_with({{"index", count()},
                      {"content", type("string")},
                      {"tokens", list_of(count())},
                      {"stop", type("boolean")},
                      {"model", type("string")},
                      {"system_fingerprint", type("string")},
                      {"stop_type", names({"eos", "limit", "word"})},
                      {"stopping_word", type("string")},
                      {"truncated", type("boolean")},
                      {"tokens_predicted", count()},
                      {"tokens_evaluated", count()},
                      {"tokens_cached", count()},
                      {"generation_settings", type("object")},
                      {"completion_probabilities", list_of(ref("TokenLogprob"))},
                      {"timings", ref("Timings")}});
}

json::object tokenize_answer() {
  json::object piece =
      record({{"id", count()}, {"piece", any_of({type("string"), list_of(integer(0, 255))})}});
  return object_with({{"tokens", list_of(any_of({count(), std::move(piece)}))},
                      {"count", count()},
                      {"max_model_len", count()},
                      {"token_strs", or_null(list_of(type("string")))}},
                     {"tokens"});
}

json::object models_schema() {
  json::object model = record({{"id", type("string")},
                               {"object", constant("model")},
                               {"created", count()},
                               {"owned_by", type("string")},
                               {"root", type("string")},
                               {"parent", type("null")},
                               {"max_model_len", count()},
                               {"meta", type("object")}});
  return record({{"object", constant("list")}, {"data", list_of(std::move(model))}});
}

json::object cache_stats_schema() {
  json::object group;
  for (const char* name : {"block_bytes", "blocks_free", "blocks_filling", "blocks_sealed",
                           "blocks_cached", "blocks_capacity", "blocks_evicted"}) {
    group[name] = count();
  }
  json::object missed;
  for (size_t i = 0; i < kv::kMissReasons; ++i) {
    missed[kv::miss_reason_name(static_cast<kv::MissReason>(i))] = count();
  }
  json::object fields{{"groups", list_of(record(std::move(group)))},
                      {"tokens_missed", record(std::move(missed))},
                      {"sharing_saved_at_peak", type("number")},
                      {"waste", type("number")}};
  for (const char* name : {"prompt_tokens",
                           "tokens_hit",
                           "sequences",
                           "nodes",
                           "nodes_max",
                           "blocks_logical",
                           "blocks_logical_peak",
                           "blocks_deduplicated",
                           "blocks_copied",
                           "blocks_relocated",
                           "promises_kept",
                           "pinned_bytes",
                           "oldest_cached_age_us",
                           "evicted_age_us",
                           "running",
                           "waiting",
                           "answers",
                           "preemptions",
                           "promise_waits",
                           "pairs_computed",
                           "prompt_tokens_computed",
                           "tokens_generated",
                           "steps",
                           "audits",
                           "audits_wrong"}) {
    fields[name] = count();
  }
  return record(std::move(fields));
}

json::object cache_map_schema() {
  json::object blocks{{"type", "string"}, {"pattern", "^[.fsc]*$"}};
  json::object legend{{"type", "object"}, {"additionalProperties", type("string")}};
  return record({{"legend", std::move(legend)},
                 {"groups", list_of(record({{"blocks", std::move(blocks)}}))}});
}

}  // namespace

json::object answer_schemas() {
  return {{"Error", error_schema()},
          {"Usage", usage_schema()},
          {"Timings", timings_schema()},
          {"TokenProbability", token_logprob_schema(/*with_top=*/false)},
          {"TokenLogprob", token_logprob_schema(/*with_top=*/true)},
          {"CompletionLogprobs", completion_logprobs_schema()},
          {"ChatAnswer", chat_answer()},
          {"CompletionAnswer", completion_answer()},
          {"LlamaAnswer", llama_answer()},
          {"LlamaAnswers", any_of({ref("LlamaAnswer"), list_of(ref("LlamaAnswer"))})},
          {"TokenizeAnswer", tokenize_answer()},
          {"DetokenizeAnswer", record({{"content", type("string")}, {"prompt", type("string")}})},
          {"RenderAnswer", record({{"token_ids", list_of(count())}, {"text", type("string")}})},
          {"Models", models_schema()},
          {"Object", type("object")},
          {"Version", record({{"version", type("string")}})},
          {"CacheStats", cache_stats_schema()},
          {"CacheMap", cache_map_schema()},
          {"CacheReset", record({{"success", type("boolean")}, {"blocks_freed", count()}})}};
}

}  // namespace kvasir::serve
