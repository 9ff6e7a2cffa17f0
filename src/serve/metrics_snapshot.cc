#include "serve/metrics_snapshot.h"

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "kv/statistics.h"

namespace kvasir::serve {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

double number(uint64_t count) {
  return static_cast<double>(count);
}
double seconds(uint64_t us) {
  return static_cast<double>(us) / 1e6;
}

// Adds a sample to a family of counters or gauges.
void add(MetricFamily& family, Labels labels, double value) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (family.type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  family.metric.push_back(std::move(metric));
}

MetricFamily make_family(std::string name, std::string help, MetricType type) {
  return {.name = std::move(name), .help = std::move(help), .type = type, .metric = {}};
}

// A metric without labels.
struct Reading {
  const char* name;
  const char* help;
  MetricType type;
  double (*value)(const api::ServiceStats& stats);
};

using Stats = api::ServiceStats;
constexpr MetricType kCounter = MetricType::Counter;
constexpr MetricType kGauge = MetricType::Gauge;

double waste(const Stats& stats) {
  const kv::CacheStats& cache = stats.engine.cache;
  if (cache.slots_allocated == 0) return 0.0;
  return 1.0 - number(cache.slots_live) / number(cache.slots_allocated);
}

constexpr Reading kCacheReadings[] = {
    {"kvasir_kv_prompt_tokens_total",
     "Prompt tokens looked for in the cache, once each, when first admitted.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.prompt_tokens); }},
    {"kvasir_kv_hit_tokens_total", "Prompt tokens served from the cache.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.tokens_hit); }},
    {"kvasir_kv_sequences", "Sequences that have a place in the cache.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.sequences); }},
    {"kvasir_kv_index_nodes", "Nodes of the prefix index.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.nodes); }},
    {"kvasir_kv_index_nodes_max", "Nodes that the prefix index has room for.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.nodes_max); }},
    {"kvasir_kv_logical_blocks", "Entries of block tables; with sharing more than blocks in use.",
     kGauge, [](const Stats& s) { return number(s.engine.cache.blocks_logical); }},
    {"kvasir_kv_logical_blocks_peak", "Most entries of block tables at a time.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.blocks_logical_peak); }},
    {"kvasir_kv_sharing_saved_ratio_at_peak",
     "Share of blocks that sharing saved when most entries of block tables were in use.", kGauge,
     [](const Stats& s) { return s.engine.cache.sharing_saved_at_peak; }},
    {"kvasir_kv_slots_allocated", "Token slots of blocks in use.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.slots_allocated); }},
    {"kvasir_kv_slots_live", "Token slots that hold a token, shared ones once.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.slots_live); }},
    {"kvasir_kv_waste_ratio", "Share of the slots of blocks in use that hold no token.", kGauge,
     waste},
    {"kvasir_kv_deduplicated_blocks_total", "Blocks given up for an equal one in the cache.",
     kCounter, [](const Stats& s) { return number(s.engine.cache.blocks_deduplicated); }},
    {"kvasir_kv_copied_blocks_total", "Blocks copied because others share them.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.blocks_copied); }},
    {"kvasir_kv_relocated_blocks_total", "Blocks moved so that a slab could change its group.",
     kCounter, [](const Stats& s) { return number(s.engine.cache.blocks_relocated); }},
    {"kvasir_kv_promises_kept_total", "Blocks that a running sequence promised and computed.",
     kCounter, [](const Stats& s) { return number(s.engine.cache.promises_kept); }},
    {"kvasir_kv_encoder_inputs_computed_total", "Encoder inputs computed.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.encoder_inputs_computed); }},
    {"kvasir_kv_encoder_inputs_shared_total", "Encoder inputs found in memory.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.encoder_inputs_shared); }},
    {"kvasir_kv_pinned_bytes", "Bytes that requests keep from eviction for a time.", kGauge,
     [](const Stats& s) { return number(s.engine.cache.pinned_bytes); }},
    {"kvasir_kv_next_evicted_age_seconds", "Time since the last use of the block that goes next.",
     kGauge, [](const Stats& s) { return seconds(s.engine.cache.oldest_cached_age_us); }},
    {"kvasir_kv_last_evicted_age_seconds",
     "Time since its last use when the last evicted block went.", kGauge,
     [](const Stats& s) { return seconds(s.engine.cache.evicted_age_us); }},
};

constexpr Reading kEngineReadings[] = {
    {"kvasir_answers_open", "Answers under way, waiting and running.", kGauge,
     [](const Stats& s) { return number(s.answers); }},
    {"kvasir_answer_tokens_open", "Prompt and max_tokens of the answers under way.", kGauge,
     [](const Stats& s) { return number(s.tokens); }},
    {"kvasir_sequences_running", "Sequences that take part in steps.", kGauge,
     [](const Stats& s) { return number(s.engine.running); }},
    {"kvasir_sequences_running_peak", "Most sequences running at a time.", kGauge,
     [](const Stats& s) { return number(s.engine.scheduler.running_peak); }},
    {"kvasir_sequences_waiting", "Sequences that wait to be admitted.", kGauge,
     [](const Stats& s) { return number(s.engine.waiting); }},
    {"kvasir_steps_total", "Steps of the engine.", kCounter,
     [](const Stats& s) { return number(s.engine.steps); }},
    {"kvasir_pairs_computed_total", "Tokens for which keys and values were computed.", kCounter,
     [](const Stats& s) { return number(s.engine.pairs_computed); }},
    {"kvasir_prompt_tokens_computed_total",
     "Prompt tokens for which keys and values were computed.", kCounter,
     [](const Stats& s) { return number(s.engine.prompt_tokens_computed); }},
    {"kvasir_tokens_generated_total", "Tokens generated.", kCounter,
     [](const Stats& s) { return number(s.tokens_generated); }},
    {"kvasir_preemptions_total", "Sequences that gave their blocks to others and began to wait.",
     kCounter, [](const Stats& s) { return number(s.engine.scheduler.preemptions); }},
    {"kvasir_promise_waits_total", "Requests that waited for blocks another one was computing.",
     kCounter, [](const Stats& s) { return number(s.engine.scheduler.promise_waits); }},
    {"kvasir_promise_waits_expired_total", "Of these, requests that gave up waiting.", kCounter,
     [](const Stats& s) { return number(s.engine.scheduler.promise_waits_expired); }},
    {"kvasir_step_overdue_seconds", "There is work, and no step has ended for so long.", kGauge,
     [](const Stats& s) { return seconds(s.since_step_us); }},
    {"kvasir_kv_audits_total", "Times the books of the cache were counted anew.", kCounter,
     [](const Stats& s) { return number(s.audits); }},
    {"kvasir_kv_audits_wrong_total", "Of these, times they were wrong and were mended: a bug.",
     kCounter, [](const Stats& s) { return number(s.audits_wrong); }},
};

constexpr Reading kVllmReadings[] = {
    {"vllm:num_requests_running", "Sequences that take part in steps.", kGauge,
     [](const Stats& s) { return number(s.engine.running); }},
    {"vllm:num_requests_waiting", "Sequences that wait to be admitted.", kGauge,
     [](const Stats& s) { return number(s.engine.waiting); }},
    {"vllm:kv_cache_usage_perc", "Share of the KV cache's blocks in use; 1 is all.", kGauge,
     [](const Stats& s) { return cache_usage(s.engine.cache); }},
    {"vllm:prefix_cache_queries_total", "Prompt tokens looked for in the cache.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.prompt_tokens); }},
    {"vllm:prefix_cache_hits_total", "Prompt tokens served from the cache.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.tokens_hit); }},
    {"vllm:prompt_tokens_total", "Prompt tokens of admitted requests.", kCounter,
     [](const Stats& s) { return number(s.engine.cache.prompt_tokens); }},
    {"vllm:generation_tokens_total", "Tokens generated.", kCounter,
     [](const Stats& s) { return number(s.tokens_generated); }},
    {"vllm:num_preemptions_total", "Sequences that gave their blocks to others.", kCounter,
     [](const Stats& s) { return number(s.engine.scheduler.preemptions); }},
};

void append(std::vector<MetricFamily>& families, std::span<const Reading> readings,
            const Stats& stats, const Labels& labels) {
  for (const Reading& reading : readings) {
    MetricFamily family = make_family(reading.name, reading.help, reading.type);
    add(family, labels, reading.value(stats));
    families.push_back(std::move(family));
  }
}

constexpr std::array<const char*, kv::kBlockStates> kStateNames = {"free", "filling", "sealed",
                                                                   "cached"};

void append_groups(std::vector<MetricFamily>& families, const kv::CacheStats& cache) {
  MetricFamily blocks = make_family("kvasir_kv_blocks", "Blocks of the KV cache by state.", kGauge);
  MetricFamily bytes = make_family("kvasir_kv_bytes", "Their bytes.", kGauge);
  MetricFamily capacity =
      make_family("kvasir_kv_blocks_capacity", "Blocks that there are.", kGauge);
  MetricFamily block_bytes = make_family("kvasir_kv_block_bytes", "Bytes of a block.", kGauge);
  MetricFamily peak = make_family("kvasir_kv_referenced_blocks_peak",
                                  "Most blocks in use by sequences at a time.", kGauge);
  MetricFamily evicted = make_family("kvasir_kv_evicted_blocks_total", "Blocks evicted.", kCounter);
  for (size_t i = 0; i < cache.groups.size(); ++i) {
    const kv::GroupStats& group = cache.groups[i];
    const ClientMetric::Label label{"group", std::to_string(i)};
    for (size_t state = 0; state < kv::kBlockStates; ++state) {
      const Labels labels{label, {"state", kStateNames[state]}};
      const uint64_t count = group.blocks.by_state[state];
      add(blocks, labels, number(count));
      add(bytes, labels, number(count * group.block_bytes));
    }
    add(capacity, {label}, number(group.blocks.capacity()));
    add(block_bytes, {label}, number(group.block_bytes));
    add(peak, {label}, number(group.blocks.referenced_peak));
    add(evicted, {label}, number(group.evicted));
  }
  for (MetricFamily* family : {&blocks, &bytes, &capacity, &block_bytes, &peak, &evicted}) {
    if (!family->metric.empty()) families.push_back(std::move(*family));
  }
}

MetricFamily missed_tokens(const kv::CacheStats& cache) {
  MetricFamily family =
      make_family("kvasir_kv_missed_tokens_total",
                  "Prompt tokens not served from the cache, by reason.", kCounter);
  for (size_t reason = 0; reason < kv::kMissReasons; ++reason) {
    const std::string_view name = kv::miss_reason_name(static_cast<kv::MissReason>(reason));
    add(family, {{"reason", std::string(name)}}, number(cache.tokens_missed[reason]));
  }
  return family;
}

}  // namespace

double cache_usage(const kv::CacheStats& cache) {
  double usage = 0.0;
  for (const kv::GroupStats& group : cache.groups) {
    if (group.blocks.capacity() == 0) continue;
    usage = std::max(usage, number(group.blocks.referenced()) / number(group.blocks.capacity()));
  }
  return usage;
}

std::vector<MetricFamily> engine_families(const Stats& stats) {
  std::vector<MetricFamily> families;
  append_groups(families, stats.engine.cache);
  families.push_back(missed_tokens(stats.engine.cache));
  append(families, kCacheReadings, stats, {});
  append(families, kEngineReadings, stats, {});
  return families;
}

std::vector<MetricFamily> vllm_families(const Stats& stats, const std::string& model_name) {
  std::vector<MetricFamily> families;
  append(families, kVllmReadings, stats, {{"engine", "0"}, {"model_name", model_name}});
  return families;
}

MetricFamily info_family(const std::string& name, const std::string& help, Labels labels) {
  MetricFamily family = make_family(name, help, kGauge);
  add(family, std::move(labels), 1.0);
  return family;
}

MetricFamily gauge_family(const std::string& name, const std::string& help, double value) {
  MetricFamily family = make_family(name, help, kGauge);
  add(family, {}, value);
  return family;
}

}  // namespace kvasir::serve
