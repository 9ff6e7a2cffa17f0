#include "serve/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "base/check.h"
#include "serve/metrics_snapshot.h"

namespace kvasir::serve {
namespace {

using prometheus::BuildCounter;
using prometheus::BuildHistogram;
using Buckets = std::vector<double>;

// vLLM's bounds, so that its dashboards add up over servers of both kinds, and finer ones below:
// small models answer sooner than those it was made for.
Buckets first_token_bounds_s() {
  return Buckets{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,  0.25,  0.5,   0.75,
                 1.0,   2.5,   5.0,  7.5,  10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
}
Buckets inter_token_bounds_s() {
  return Buckets{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,  0.15, 0.2,  0.3,
                 0.4,   0.5,    0.75,  1.0,  2.5,   5.0,  7.5,   10.0, 20.0, 40.0, 80.0};
}
Buckets request_bounds_s() {
  return Buckets{0.01, 0.03, 0.1,  0.3,  0.5,  0.8,  1.0,   1.5,   2.0,   2.5,   5.0,    10.0,
                 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
}

// 1, 2, 5, 10, 20 ... up to the longest sequence.
Buckets token_bounds(uint32_t tokens_max) {
  Buckets bounds;
  for (double decade = 1.0; decade <= tokens_max; decade *= 10.0) {
    for (const double step : {1.0, 2.0, 5.0}) {
      if (step * decade <= tokens_max) bounds.push_back(step * decade);
    }
  }
  return bounds;
}

constexpr api::EndReason kReasons[] = {api::EndReason::kStop, api::EndReason::kLength,
                                       api::EndReason::kCancelled, api::EndReason::kDeadline,
                                       api::EndReason::kModelFailed};

// vLLM's name for how a request ended.
std::string finished_reason(api::EndReason reason) {
  switch (reason) {
    case api::EndReason::kStop:
      return "stop";
    case api::EndReason::kLength:
      return "length";
    case api::EndReason::kCancelled:
    case api::EndReason::kDeadline:
      return "abort";
    case api::EndReason::kModelFailed:
      return "error";
  }
  return "error";
}

prometheus::Labels vllm_labels(const MetricsConstants& constants) {
  return {{"model_name", constants.model_name}, {"engine", "0"}};
}

prometheus::Histogram& vllm_histogram(prometheus::Registry& registry,
                                      const MetricsConstants& constants, const char* name,
                                      const char* help, const Buckets& bounds) {
  return BuildHistogram().Name(name).Help(help).Register(registry).Add(vllm_labels(constants),
                                                                       bounds);
}

// Clocks of other threads are involved: never less than nothing.
double seconds_between(uint64_t from_us, uint64_t to_us) {
  return to_us > from_us ? static_cast<double>(to_us - from_us) / 1e6 : 0.0;
}

}  // namespace

Metrics::Metrics(MetricsConstants constants)
    : constants_(std::move(constants)),
      http_requests_(BuildCounter()
                         .Name("kvasir_http_requests_total")
                         .Help("HTTP requests answered, by route and status.")
                         .Register(registry_)),
      refused_(BuildCounter()
                   .Name("kvasir_refused_total")
                   .Help("Completions refused although they were well-formed, by reason.")
                   .Register(registry_)),
      promise_wait_s_(BuildCounter()
                          .Name("kvasir_promise_wait_seconds_total")
                          .Help("Time waited for blocks that another request was computing.")
                          .Register(registry_)
                          .Add({})),
      first_token_s_(vllm_histogram(registry_, constants_, "vllm:time_to_first_token_seconds",
                                    "From arrival to the first token.", first_token_bounds_s())),
      inter_token_s_(vllm_histogram(registry_, constants_, "vllm:inter_token_latency_seconds",
                                    "Between two tokens of an answer.", inter_token_bounds_s())),
      request_s_(vllm_histogram(registry_, constants_, "vllm:e2e_request_latency_seconds",
                                "From arrival to the end of an answer.", request_bounds_s())),
      queue_s_(vllm_histogram(registry_, constants_, "vllm:request_queue_time_seconds",
                              "From arrival to admission.", request_bounds_s())),
      prompt_tokens_(vllm_histogram(registry_, constants_, "vllm:request_prompt_tokens",
                                    "Prompt tokens of a request.",
                                    token_bounds(constants_.tokens_max))),
      cached_tokens_(BuildHistogram()
                         .Name("kvasir_request_cached_tokens")
                         .Help("Prompt tokens of a request that the cache had.")
                         .Register(registry_)
                         .Add({}, token_bounds(constants_.tokens_max))),
      generated_tokens_(vllm_histogram(registry_, constants_, "vllm:request_generation_tokens",
                                       "Generated tokens of an answer.",
                                       token_bounds(constants_.tokens_max))) {
  static_assert(std::size(kReasons) == kEndReasons);
  auto& answers = BuildCounter()
                      .Name("kvasir_answers_total")
                      .Help("Answers that have ended, by reason.")
                      .Register(registry_);
  auto& successes = BuildCounter()
                        .Name("vllm:request_success_total")
                        .Help("Requests that have ended, by vLLM's name for the reason.")
                        .Register(registry_);
  for (const api::EndReason reason : kReasons) {
    prometheus::Labels labels = vllm_labels(constants_);
    labels["finished_reason"] = finished_reason(reason);
    const size_t index = static_cast<size_t>(reason);
    answers_[index] = &answers.Add({{"reason", std::string(api::end_reason_name(reason))}});
    successes_[index] = &successes.Add(labels);
  }
}

void Metrics::on_answer_ended(const api::Ending& ending) {
  const size_t reason = static_cast<size_t>(ending.reason);
  CHECK(reason < kEndReasons);
  answers_[reason]->Increment();
  successes_[reason]->Increment();
  const engine::RequestStats& stats = ending.stats;
  if (stats.finished_us == 0) return;  // cancelled before the engine had seen it
  promise_wait_s_.Increment(static_cast<double>(stats.promise_wait_us) / 1e6);
  request_s_.Observe(seconds_between(stats.submitted_us, stats.finished_us));
  prompt_tokens_.Observe(stats.prompt_tokens);
  generated_tokens_.Observe(stats.tokens_generated);
  if (stats.admitted_us) {
    queue_s_.Observe(seconds_between(stats.submitted_us, *stats.admitted_us));
    cached_tokens_.Observe(stats.tokens_cached);
  }
}

void Metrics::on_first_token(uint64_t since_arrival_us) {
  first_token_s_.Observe(static_cast<double>(since_arrival_us) / 1e6);
}

// Tokens that came together: the first after the gap, the others at once.
void Metrics::on_tokens(uint64_t gap_us, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    inter_token_s_.Observe(i == 0 ? static_cast<double>(gap_us) / 1e6 : 0.0);
  }
}

void Metrics::on_response(std::string_view route, unsigned status) {
  http_requests_.Add({{"route", std::string(route)}, {"status", std::to_string(status)}})
      .Increment();
}

void Metrics::on_refused(std::string_view reason) {
  refused_.Add({{"reason", std::string(reason)}}).Increment();
}

std::string Metrics::text(const api::ServiceStats& stats,
                          std::optional<uint32_t> connections) const {
  std::vector<prometheus::MetricFamily> families = registry_.Collect();
  std::ranges::move(engine_families(stats), std::back_inserter(families));
  std::ranges::move(vllm_families(stats, constants_.model_name), std::back_inserter(families));
  if (connections) {
    families.push_back(gauge_family("kvasir_http_connections", "Open connections.", *connections));
  }
  families.push_back(info_family("kvasir_build_info", "What is running.",
                                 {{"version", constants_.version},
                                  {"model", constants_.model_name},
                                  {"isa", constants_.isa},
                                  {"kv_mode", constants_.kv_mode},
                                  {"kv_dtype", constants_.kv_dtype}}));
  families.push_back(info_family("vllm:cache_config_info", "How the KV cache is set up.",
                                 {{"engine", "0"},
                                  {"model_name", constants_.model_name},
                                  {"block_size", std::to_string(constants_.block_tokens)},
                                  {"num_gpu_blocks", std::to_string(constants_.blocks)},
                                  {"cache_dtype", constants_.kv_dtype}}));
  std::ranges::sort(families, {}, &prometheus::MetricFamily::name);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace kvasir::serve
