#include "serve/handlers.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "api/cache_json.h"
#include "serve/api_error.h"
#include "serve/openapi.h"
#include "serve/text_api.h"

namespace kvasir::serve {
namespace {

std::optional<uint64_t> deadline_us(double seconds) {
  if (seconds <= 0.0) return std::nullopt;
  return static_cast<uint64_t>(seconds * 1e6);
}

http::Response json_response(const boost::json::value& value, unsigned status = 200) {
  return {.status = status, .body = boost::json::serialize(value)};
}

// Counts how a request was answered.
class CountedExchange final : public http::Exchange {
 public:
  CountedExchange(std::shared_ptr<http::Exchange> exchange, Metrics& metrics,
                  std::string_view route)
      : exchange_(std::move(exchange)), metrics_(metrics), route_(route) {}

  const http::Request& request() const override { return exchange_->request(); }
  void respond(http::Response response) override {
    metrics_.on_response(route_, response.status);
    exchange_->respond(std::move(response));
  }
  void begin_stream(std::string_view content_type) override {
    metrics_.on_response(route_, 200);
    exchange_->begin_stream(content_type);
  }
  void write(std::string piece) override { exchange_->write(std::move(piece)); }
  void end_stream() override { exchange_->end_stream(); }
  void on_gone(std::function<void()> callback) override { exchange_->on_gone(std::move(callback)); }
  void on_slow(std::function<void(bool)> callback) override {
    exchange_->on_slow(std::move(callback));
  }

 private:
  std::shared_ptr<http::Exchange> exchange_;
  Metrics& metrics_;
  std::string_view route_;
};

// The name in "name:port", "[::1]:port" or "http://name:port".
std::string_view name_of(std::string_view authority) {
  if (const size_t scheme = authority.find("://"); scheme != std::string_view::npos) {
    authority.remove_prefix(scheme + 3);
  }
  const size_t bracket = authority.find(']');
  const size_t colon = authority.find(':', bracket == std::string_view::npos ? 0 : bracket);
  return authority.substr(0, colon);
}

}  // namespace

Handlers::Handlers(HandlerParts parts, ModelInfo model)
    : parts_(std::move(parts)),
      model_(std::move(model)),
      tenant_answers_(std::max<size_t>(parts_.keys->tenants().size(), 1)) {
  const ServeFlags& flags = *parts_.flags;
  completion_parts_ = {.service = parts_.service,
                       .metrics = parts_.metrics,
                       .log = parts_.log,
                       .keys = parts_.keys,
                       .writer = writer_.get_executor(),
                       .deadlines = {.begun_us = deadline_us(flags.queue_timeout_s),
                                     .first_token_us = deadline_us(flags.first_token_timeout_s),
                                     .finished_us = deadline_us(flags.request_timeout_s)}};
}

Handlers::~Handlers() {
  worker_.join();
  writer_.join();
}

std::span<const Handlers::Route> Handlers::routes() {
  using enum Access;
  static constexpr Route kRoutes[] = {
      {"GET", "/livez", kOpen, false, &Handlers::live},
      {"GET", "/readyz", kOpen, false, &Handlers::ready},
      {"GET", "/health", kOpen, false, &Handlers::ready},
      {"GET", "/version", kKeyed, false, &Handlers::version},
      {"GET", "/v1/models", kKeyed, false, &Handlers::models},
      {"GET", "/tokenizer_info", kKeyed, false, &Handlers::tokenizer_info},
      {"GET", "/openapi.json", kKeyed, false, &Handlers::openapi},
      {"GET", "/metrics", kAdmin, false, &Handlers::metrics},
      {"GET", "/kv/stats", kAdmin, false, &Handlers::kv_stats},
      {"GET", "/kv/map", kAdmin, false, &Handlers::kv_map},
      {"POST", "/reset_prefix_cache", kAdmin, false, &Handlers::reset_cache},
      {"POST", "/v1/chat/completions", kKeyed, true, &Handlers::chat},
      {"POST", "/v1/completions", kKeyed, true, &Handlers::completions},
      {"POST", "/completion", kKeyed, true, &Handlers::llama_completion},
      {"POST", "/completions", kKeyed, true, &Handlers::llama_completion},
      {"POST", "/infill", kKeyed, true, &Handlers::infill},
      {"POST", "/tokenize", kKeyed, true, &Handlers::tokenize},
      {"POST", "/detokenize", kKeyed, true, &Handlers::detokenize},
      {"POST", "/v1/chat/completions/render", kKeyed, true, &Handlers::render}};
  return kRoutes;
}

const Handlers::Route* Handlers::find_route(const http::Head& head) {
  const std::string_view method = head.method == "HEAD" ? "GET" : std::string_view(head.method);
  const auto at = std::ranges::find_if(routes(), [&](const Route& route) {
    return route.path == head.path && route.method == method;
  });
  return at == routes().end() ? nullptr : &*at;
}

std::optional<http::Response> Handlers::gate(const http::Head& head, http::Caller& caller) const {
  const Route* route = find_route(head);
  std::optional<http::Response> refusal = check_origin(head);
  if (!refusal) refusal = check_access(head, route, caller);
  const std::string_view name = route == nullptr ? "none" : route->path;
  if (refusal) parts_.metrics->on_response(name, refusal->status);
  return refusal;
}

std::optional<http::Response> Handlers::check_access(const http::Head& head, const Route* route,
                                                     http::Caller& caller) const {
  if (route != nullptr && route->access == Access::kOpen) return std::nullopt;
  const bool scraped = route != nullptr && route->path == "/metrics" && head.admin_listener;
  if (scraped) return std::nullopt;
  const bool keyed = !parts_.keys->empty();
  if (keyed) {
    const auto found = parts_.keys->find(head.field("authorization"));
    if (!found) {
      http::Response refusal =
          error_response({.status = 401,
                          .message = "no valid API key; send one as 'Authorization: Bearer KEY'",
                          .code = "invalid_api_key"});
      refusal.fields.emplace_back("WWW-Authenticate", "Bearer");
      return refusal;
    }
    caller = *found;
  }
  if (route == nullptr) return no_route(head);
  if (route->access != Access::kAdmin) return std::nullopt;
  const bool elsewhere = parts_.flags->admin_port && !head.admin_listener;
  if (!elsewhere && (!keyed || caller.admin)) return std::nullopt;
  return error_response({.status = 403,
                         .message = elsewhere ? "this endpoint is on the admin listener"
                                              : "this endpoint needs the key of an admin",
                         .code = "forbidden"});
}

http::Response Handlers::no_route(const http::Head& head) {
  std::string allowed;
  for (const Route& other : routes()) {
    if (other.path != head.path) continue;
    allowed += fmt::format("{}{}", allowed.empty() ? "" : ", ", other.method);
  }
  if (allowed.empty()) {
    return error_response({.status = 404,
                           .message = "no such endpoint; GET /openapi.json lists them",
                           .code = "not_found"});
  }
  http::Response refusal = error_response(
      {.status = 405, .message = fmt::format("use {} here", allowed), .code = "bad_method"});
  refusal.fields.emplace_back("Allow", allowed);
  return refusal;
}

// A page in a browser may reach a loopback address under another name (DNS rebinding), or from
// another site.
std::optional<http::Response> Handlers::check_origin(const http::Head& head) const {
  const std::string& host = head.admin_listener ? parts_.flags->admin_host : parts_.flags->host;
  if (!is_loopback(host)) return std::nullopt;
  const auto names_us = [&](std::string_view value) {
    return value.empty() || is_own_name(value, host);
  };
  if (names_us(head.field("host")) && names_us(head.field("origin"))) return std::nullopt;
  return error_response(
      {.status = 403,
       .message = "the Host or Origin header names another machine; --allow-host permits names",
       .code = "forbidden"});
}

bool Handlers::is_own_name(std::string_view authority, std::string_view host) const {
  const std::string_view name = name_of(authority);
  return name == "localhost" || name == "127.0.0.1" || name == "[::1]" || name == host ||
         std::ranges::find(parts_.flags->allowed_hosts, name) != parts_.flags->allowed_hosts.end();
}

void Handlers::handle(const Shared& exchange) {
  const Route* route = find_route(exchange->request().head);  // the gate has let it pass
  const auto counted = std::make_shared<CountedExchange>(exchange, *parts_.metrics, route->path);
  if (!route->works) {
    (this->*route->action)(counted);
    return;
  }
  boost::asio::post(worker_, [this, route, counted] { (this->*route->action)(counted); });
}

void Handlers::complete(const Shared& exchange, Parser parse) {
  auto call = parse(model_, exchange->request());
  if (!call) return exchange->respond(error_response(call.error()));
  const uint32_t tenant = exchange->request().caller.tenant;
  const ApiResult<uint32_t> checked = check_requests((*call)->requests(), tenant);
  if (!checked) return exchange->respond(error_response(checked.error()));
  const uint32_t answers = *checked;
  if (!claim_tenant_place(tenant, answers)) {
    parts_.metrics->on_refused("tenant_limit");
    return exchange->respond(
        error_response({.status = 429,
                        .message = "this key has as many requests under way as it may",
                        .code = "tenant_limit",
                        .retry_after_s = 1}));
  }
  completions_open_.fetch_add(1);
  Completion::start(completion_parts_, exchange, *std::move(call), [this, tenant, answers] {
    tenant_answers_[tenant].fetch_sub(answers);
    completions_open_.fetch_sub(1);
  });
}

// How many answers they ask for. Error: they can never run, alone or together.
ApiResult<uint32_t> Handlers::check_requests(const std::vector<api::GenerateRequest>& requests,
                                             uint32_t tenant) const {
  uint32_t answers = 0;
  uint64_t tokens = 0;
  for (const api::GenerateRequest& request : requests) {
    if (base::Status status = parts_.service->check(request); !status) {
      return std::unexpected(ApiError{.message = status.error().message});
    }
    answers += request.choices;
    tokens += request.prompt.size() + uint64_t{request.max_tokens} * request.choices;
  }
  const bool is_one = requests.size() == 1;
  api::ServiceLimits limits =
      is_one ? parts_.service->limits() : parts_.service->limits_of_one_tenant();
  limits.answers_max = std::min(limits.answers_max,
                                parts_.keys->tenants()[tenant].requests_max.value_or(UINT32_MAX));
  if (answers <= limits.answers_max && (is_one || tokens <= limits.tokens_max)) return answers;
  return std::unexpected(ApiError{
      .message = fmt::format("{} answers of {} tokens in all are more than the server takes of you "
                             "at a time: {} answers, {} tokens; ask for fewer at once",
                             answers, tokens, limits.answers_max, limits.tokens_max)});
}

bool Handlers::claim_tenant_place(uint32_t tenant, uint32_t answers) {
  const uint32_t before = tenant_answers_[tenant].fetch_add(answers);
  const std::optional<uint32_t> requests_max = parts_.keys->tenants()[tenant].requests_max;
  if (!requests_max || before + answers <= *requests_max) return true;
  tenant_answers_[tenant].fetch_sub(answers);
  return false;
}

void Handlers::live(const Shared& exchange) {
  exchange->respond({.body = "ok\n", .content_type = "text/plain"});
}

void Handlers::ready(const Shared& exchange) {
  const bool draining = parts_.service->draining();
  const bool stuck = parts_.service->stats().since_step_us > kStuckAfterUs;
  if (!draining && !stuck) {
    return exchange->respond({.body = "ready\n", .content_type = "text/plain"});
  }
  exchange->respond({.status = 503,
                     .body = draining ? "draining\n" : "the engine makes no progress\n",
                     .content_type = "text/plain",
                     .fields = {{"Retry-After", "5"}}});
}

void Handlers::version(const Shared& exchange) {
  exchange->respond(json_response(boost::json::object{{"version", parts_.version}}));
}

void Handlers::models(const Shared& exchange) {
  exchange->respond(json_response(models_json(model_)));
}

void Handlers::tokenizer_info(const Shared& exchange) {
  exchange->respond(json_response(tokenizer_json(model_)));
}

void Handlers::metrics(const Shared& exchange) {
  exchange->respond({.body = parts_.metrics->text(parts_.service->stats(), parts_.connections()),
                     .content_type = "text/plain; version=0.0.4; charset=utf-8"});
}

void Handlers::openapi(const Shared& exchange) {
  http::Response response;
  response.body = openapi_document({.version = parts_.version,
                                    .model_id = model_.id,
                                    .needs_key = !parts_.keys->empty(),
                                    .vocab_size = model_.vocab_size(),
                                    .tokens_max = model_.tokens_max,
                                    .prompts_max = model_.prompts_max,
                                    .messages_max = model_.messages_max});
  exchange->respond(std::move(response));
}

void Handlers::kv_stats(const Shared& exchange) {
  parts_.service->with_engine([exchange, service = parts_.service](engine::Engine& engine) {
    const engine::EngineStats stats = engine.stats();
    const api::ServiceStats counts = service->stats();
    boost::json::object body = api::cache_json(stats.cache);
    body["running"] = stats.running;
    body["waiting"] = stats.waiting;
    body["answers"] = counts.answers;
    body["preemptions"] = stats.scheduler.preemptions;
    body["promise_waits"] = stats.scheduler.promise_waits;
    body["pairs_computed"] = stats.pairs_computed;
    body["prompt_tokens_computed"] = stats.prompt_tokens_computed;
    body["tokens_generated"] = counts.tokens_generated;
    body["steps"] = stats.steps;
    body["audits"] = counts.audits;
    body["audits_wrong"] = counts.audits_wrong;
    exchange->respond(json_response(body));
  });
}

// A letter for each block, in the order of the arena.
void Handlers::kv_map(const Shared& exchange) {
  parts_.service->with_engine([exchange](engine::Engine& engine) {
    static constexpr char kLetters[] = {'.', 'f', 's', 'c'};
    boost::json::array groups;
    for (const std::vector<kv::BlockState>& states : engine.block_states()) {
      std::string letters;
      for (const kv::BlockState state : states) letters += kLetters[static_cast<size_t>(state)];
      groups.push_back(boost::json::object{{"blocks", letters}});
    }
    exchange->respond(json_response(boost::json::object{
        {"legend", {{".", "free"}, {"f", "filling"}, {"s", "sealed"}, {"c", "cached"}}},
        {"groups", std::move(groups)}}));
  });
}

void Handlers::reset_cache(const Shared& exchange) {
  parts_.service->with_engine([exchange](engine::Engine& engine) {
    const kv::ResetResult result = engine.reset_cache();
    if (result.done) {
      return exchange->respond(json_response(
          boost::json::object{{"success", true}, {"blocks_freed", result.blocks_freed}}));
    }
    exchange->respond(error_response(
        {.status = 409,
         .message = fmt::format("{} sequences are using the cache; try again when they have ended",
                                result.sequences_open),
         .code = "cache_in_use"}));
  });
}

void Handlers::chat(const Shared& exchange) {
  complete(exchange, parse_chat);
}
void Handlers::completions(const Shared& exchange) {
  complete(exchange, parse_completion);
}
void Handlers::llama_completion(const Shared& exchange) {
  complete(exchange, parse_llama_completion);
}
void Handlers::infill(const Shared& exchange) {
  complete(exchange, parse_infill);
}
void Handlers::tokenize(const Shared& exchange) {
  exchange->respond(tokenize_response(model_, exchange->request()));
}
void Handlers::detokenize(const Shared& exchange) {
  exchange->respond(detokenize_response(model_, exchange->request()));
}
void Handlers::render(const Shared& exchange) {
  exchange->respond(render_response(model_, exchange->request()));
}

}  // namespace kvasir::serve
