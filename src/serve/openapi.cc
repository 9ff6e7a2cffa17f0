#include "serve/openapi.h"

#include <boost/json.hpp>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>

#include "serve/openapi_schemas.h"
#include "serve/schema_parts.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kText = "text/plain";
constexpr std::string_view kEvents = "text/event-stream";
constexpr std::string_view kSecurity = "key";

// Who may call an endpoint.
enum class Audience : uint8_t { kAll, kClients, kOperators };

// What of an endpoint is its own.
struct Endpoint {
  std::string_view method;
  std::string_view path;
  std::string_view id;
  std::string_view summary;
  Audience audience;
  std::string_view request;    // name of its schema; empty: no body
  std::string_view answer;     // the same; empty: text
  bool completes = false;      // waits for the engine: more can go wrong, and it may stream
  std::string_view example;    // of a request
  unsigned further_error = 0;  // that only this one has; 0: none
};

constexpr std::string_view kChatExample =
    R"({"messages":[{"role":"user","content":"What is a cache?"}],"max_tokens":16})";
constexpr std::string_view kCompletionExample =
    R"({"prompt":"Once upon a time","max_tokens":16,"temperature":0})";
constexpr std::string_view kLlamaExample = R"({"prompt":"Once upon a time","n_predict":16})";

constexpr Endpoint kEndpoints[] = {
    {"post", "/v1/chat/completions", "createChatCompletion", "Answer a conversation.",
     Audience::kClients, "ChatRequest", "ChatAnswer", true, kChatExample},
    {"post", "/v1/chat/completions/render", "renderChat", "Show the prompt of a conversation.",
     Audience::kClients, "RenderRequest", "RenderAnswer", false, kChatExample},
    {"post", "/v1/completions", "createCompletion", "Continue a text or a list of token ids.",
     Audience::kClients, "CompletionRequest", "CompletionAnswer", true, kCompletionExample},
    {"post", "/completion", "llamaCompletion", "Continue a text, as llama.cpp's server does.",
     Audience::kClients, "LlamaRequest", "LlamaAnswers", true, kLlamaExample},
    {"post", "/completions", "llamaCompletions", "The same under its other name.",
     Audience::kClients, "LlamaRequest", "LlamaAnswers", true, kLlamaExample},
    {"post", "/infill", "infill", "Fill the gap between two texts, as llama.cpp's server does.",
     Audience::kClients, "InfillRequest", "LlamaAnswers", true,
     R"({"input_prefix":"int main() {","input_suffix":"}","n_predict":16})"},
    {"post", "/tokenize", "tokenize", "Token ids of a text or a conversation.", Audience::kClients,
     "TokenizeRequest", "TokenizeAnswer", false, R"({"content":"Hello world"})"},
    {"post", "/detokenize", "detokenize", "Text of token ids.", Audience::kClients,
     "DetokenizeRequest", "DetokenizeAnswer", false, R"({"tokens":[1,2,3]})"},
    {"get", "/v1/models", "listModels", "The model that is here.", Audience::kClients, "",
     "Models"},
    {"get", "/version", "getVersion", "The version of the server.", Audience::kClients, "",
     "Version"},
    {"get", "/tokenizer_info", "getTokenizer", "What the tokenizer adds and ends with.",
     Audience::kClients, "", "Object"},
    {"get", "/openapi.json", "getDescription", "This document.", Audience::kClients, "", "Object"},
    {"get", "/livez", "isAlive", "Whether the process answers.", Audience::kAll},
    {"get", "/readyz", "isReady", "Whether requests would be served now.", Audience::kAll, "", "",
     false, "", 503},
    {"get", "/health", "getHealth", "The same under the name that others use.", Audience::kAll, "",
     "", false, "", 503},
    {"get", "/metrics", "getMetrics", "Figures in Prometheus's text format.", Audience::kOperators},
    {"get", "/kv/stats", "getCacheStats", "What the KV cache holds and has done.",
     Audience::kOperators, "", "CacheStats"},
    {"get", "/kv/map", "getCacheMap", "The state of every block of the KV cache.",
     Audience::kOperators, "", "CacheMap"},
    {"post", "/reset_prefix_cache", "resetCache", "Forget everything that is cached.",
     Audience::kOperators, "", "CacheReset", false, "", 409},
};

struct ErrorMeaning {
  unsigned status;
  std::string_view meaning;
};
constexpr ErrorMeaning kErrors[] = {
    {400, "The request is malformed, or a field is wrong: `param` names it."},
    {401, "No valid API key."},
    {403, "Not for this key, this listener, or under this host name."},
    {404, "Another model is wanted than the one that is here."},
    {405, "Another method is wanted here: see the Allow field."},
    {408, "The body did not come in time."},
    {409, "The cache is in use; nothing was forgotten."},
    {413, "The body is too large."},
    {415, "The body is compressed."},
    {429, "The queue is full, or this key has too much under way: see the Retry-After field."},
    {500, "The server failed, and only this request did."},
    {503, "Not now: the server is shutting down or stuck."},
    {504, "The answer was not complete before its deadline."},
};

std::string_view meaning_of(unsigned status) {
  for (const ErrorMeaning& error : kErrors) {
    if (error.status == status) return error.meaning;
  }
  return "";
}

json::object content_of(std::string_view media_type, json::object schema) {
  return {{media_type, {{"schema", std::move(schema)}}}};
}

json::object success(const Endpoint& endpoint) {
  if (endpoint.answer.empty()) {
    return {{"description", "As the summary says."},
            {"content", content_of(kText, {{"type", "string"}})}};
  }
  json::object content = content_of(kJson, schema::ref(endpoint.answer));
  // What the data of each event is, OpenAPI 3.1 has no words for.
  if (endpoint.completes) content[kEvents] = json::object();
  return {{"description", endpoint.completes ? "The answer; with `stream` in server-sent events."
                                             : "As the summary says."},
          {"content", std::move(content)}};
}

json::object failure(unsigned status, bool as_text) {
  json::object content =
      as_text ? content_of(kText, {{"type", "string"}}) : content_of(kJson, schema::ref("Error"));
  return {{"description", meaning_of(status)}, {"content", std::move(content)}};
}

json::object responses_of(const Endpoint& endpoint, bool needs_key) {
  json::object responses{{"200", success(endpoint)}};
  const auto add = [&](std::initializer_list<unsigned> statuses) {
    for (const unsigned status : statuses) {
      const bool as_text = endpoint.audience == Audience::kAll && status == 503;
      responses[std::to_string(status)] = failure(status, as_text);
    }
  };
  add({400, 403, 405});
  if (needs_key && endpoint.audience != Audience::kAll) add({401});
  if (endpoint.method == "post") add({408, 413, 415, 503});
  if (!endpoint.request.empty()) add({404, 500});
  if (endpoint.completes) add({429, 504});
  if (endpoint.further_error != 0) add({endpoint.further_error});
  return responses;
}

json::object request_body(const Endpoint& endpoint) {
  json::object content = content_of(kJson, schema::ref(endpoint.request));
  content.at(kJson).as_object()["example"] = json::parse(endpoint.example);
  return {{"required", true}, {"content", std::move(content)}};
}

json::object operation(const Endpoint& endpoint, bool needs_key) {
  json::object operation{{"operationId", endpoint.id},
                         {"summary", endpoint.summary},
                         {"responses", responses_of(endpoint, needs_key)}};
  if (!endpoint.request.empty()) operation["requestBody"] = request_body(endpoint);
  // An empty requirement: also without a key.
  if (needs_key && endpoint.audience == Audience::kAll) operation["security"].emplace_array();
  if (endpoint.audience == Audience::kOperators) {
    operation["description"] =
        "For operators: needs an admin's key, and with an admin listener is answered only there.";
  }
  return operation;
}

}  // namespace

std::string openapi_document(const ApiDescription& api) {
  json::object paths;
  for (const Endpoint& endpoint : kEndpoints) {
    json::value& path = paths[endpoint.path];
    if (path.is_null()) path.emplace_object();
    path.as_object()[endpoint.method] = operation(endpoint, api.needs_key);
  }
  json::object schemas = request_schemas(api);
  for (json::key_value_pair& answer : answer_schemas()) schemas.insert(std::move(answer));
  json::object components{{"schemas", std::move(schemas)}};
  if (api.needs_key) {
    components["securitySchemes"] = {{kSecurity, {{"type", "http"}, {"scheme", "bearer"}}}};
  }
  json::object document{{"openapi", "3.1.0"},
                        {"info",
                         {{"title", "Kvasir"},
                          {"version", api.version},
                          {"description",
                           "LLM inference: OpenAI's completions, and what clients of vLLM and "
                           "llama.cpp's server use."}}},
                        {"paths", std::move(paths)},
                        {"components", std::move(components)}};
  if (api.needs_key) {
    document["security"].emplace_array().push_back(json::object{{kSecurity, json::array()}});
  }
  return json::serialize(document);
}

}  // namespace kvasir::serve
