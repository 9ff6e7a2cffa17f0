// What the server tells Prometheus: how its cache, its engine and its clients fare, under kvasir_*,
// and under the vllm:* names that routers and dashboards read.
//
// Counts that the engine keeps are read from its snapshot when somebody asks, so they are exact;
// only what no snapshot holds (latencies, HTTP) is counted here.
//
// Thread: any. Allocates: on_response(), on_refused() and text(); the others never.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "api/service.h"

namespace kvasir::serve {

// What never changes while the server runs.
struct MetricsConstants {
  std::string model_name;
  std::string version;
  std::string kv_mode;   // "paged"
  std::string kv_dtype;  // "bf16"
  std::string isa;       // "avx512"
  uint32_t block_tokens = 0;
  uint32_t blocks = 0;      // capacity of the cache
  uint32_t tokens_max = 0;  // of the longest sequence
};

class Metrics {
 public:
  explicit Metrics(MetricsConstants constants);

  // One choice of one request has ended.
  void on_answer_ended(const api::Ending& ending);
  // The first tokens of a choice came so long after its request.
  void on_first_token(uint64_t since_arrival_us);
  // `count` tokens of an answer came `gap_us` after those before them; not for its first ones.
  void on_tokens(uint64_t gap_us, size_t count);
  // `route` and `reason` are names of ours, never what a client wrote: each is a series for ever.
  void on_response(std::string_view route, unsigned status);
  void on_refused(std::string_view reason);

  // Everything, in Prometheus's text format. `connections`: open now; nullopt: not known.
  std::string text(const api::ServiceStats& stats,
                   std::optional<uint32_t> connections = std::nullopt) const;

 private:
  static constexpr size_t kEndReasons = 5;

  MetricsConstants constants_;
  prometheus::Registry registry_;
  // They live in the registry.
  prometheus::Family<prometheus::Counter>& http_requests_;
  prometheus::Family<prometheus::Counter>& refused_;
  std::array<prometheus::Counter*, kEndReasons> answers_{};  // by api::EndReason
  std::array<prometheus::Counter*, kEndReasons> successes_{};
  prometheus::Counter& promise_wait_s_;
  prometheus::Histogram& first_token_s_;
  prometheus::Histogram& inter_token_s_;
  prometheus::Histogram& request_s_;
  prometheus::Histogram& queue_s_;
  prometheus::Histogram& prompt_tokens_;
  prometheus::Histogram& cached_tokens_;
  prometheus::Histogram& generated_tokens_;
};

}  // namespace kvasir::serve
