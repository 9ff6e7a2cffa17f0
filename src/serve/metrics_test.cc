#include "serve/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <sstream>
#include <thread>

namespace kvasir::serve {
namespace {

using ::testing::HasSubstr;

// Prometheus's text format, read strictly:
// https://prometheus.io/docs/instrumenting/exposition_formats
struct Exposition {
  std::map<std::string, double> samples;  // by name and labels as they are written
  std::map<std::string, std::string> types;
  std::vector<std::string> mistakes;

  double at(const std::string& series) const {
    const auto found = samples.find(series);
    return found == samples.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
  }
};

std::string family_of(const std::string& name, const Exposition& exposition) {
  for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
    if (!name.ends_with(suffix)) continue;
    const std::string base = name.substr(0, name.size() - suffix.size());
    const auto type = exposition.types.find(base);
    if (type != exposition.types.end() && type->second == "histogram") return base;
  }
  return name;
}

void read_sample(const std::string& line, const std::string& family, Exposition& exposition) {
  const size_t labels = line.find('{');
  const size_t value = line.rfind(' ');
  const std::string series = line.substr(0, value);
  const std::string name = series.substr(0, labels);
  if (family_of(name, exposition) != family) {
    exposition.mistakes.push_back("not under its TYPE: " + line);
  }
  if (labels != std::string::npos && !series.ends_with('}')) {
    exposition.mistakes.push_back("labels without end: " + line);
  }
  std::istringstream number(line.substr(value + 1));
  double read = 0.0;
  if (!(number >> read) || !number.eof() || !std::isfinite(read)) {
    exposition.mistakes.push_back("not a number: " + line);
  }
  if (!exposition.samples.emplace(series, read).second) {
    exposition.mistakes.push_back("twice: " + line);
  }
}

Exposition read_exposition(const std::string& text) {
  Exposition exposition;
  std::istringstream lines(text);
  std::string helped;
  std::string family;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string hash;
    std::string keyword;
    std::string name;
    if (!line.starts_with('#')) {
      read_sample(line, family, exposition);
      continue;
    }
    words >> hash >> keyword >> name;
    if (keyword == "HELP") helped = name;
    if (keyword != "TYPE") continue;
    if (helped != name) exposition.mistakes.push_back("no HELP: " + name);
    family = name;
    std::string type;
    words >> type;
    if (!exposition.types.emplace(name, type).second) {
      exposition.mistakes.push_back("two TYPEs: " + name);
    }
  }
  return exposition;
}

// Series of a histogram in the order of their bounds: {labels without le, {bound, count}}.
std::map<std::string, std::map<double, double>> buckets_of(const Exposition& exposition) {
  std::map<std::string, std::map<double, double>> buckets;
  for (const auto& [series, count] : exposition.samples) {
    const size_t le = series.find("le=\"");
    if (le == std::string::npos) continue;
    const size_t end = series.find('"', le + 4);
    const std::string bound = series.substr(le + 4, end - le - 4);
    const double number =
        bound == "+Inf" ? std::numeric_limits<double>::infinity() : std::stod(bound);
    buckets[series.substr(0, series.find("_bucket"))][number] = count;
  }
  return buckets;
}

MetricsConstants constants() {
  return {.model_name = "tiny",
          .version = "1.2.3",
          .kv_mode = "paged",
          .kv_dtype = "bf16",
          .isa = "avx2",
          .block_tokens = 32,
          .blocks = 100,
          .tokens_max = 2048};
}

api::ServiceStats snapshot() {
  api::ServiceStats stats;
  kv::CacheStats& cache = stats.engine.cache;
  cache.groups.push_back(
      {.blocks = {.by_state = {40, 10, 20, 30}, .referenced_peak = 55}, .block_bytes = 4096});
  cache.groups.push_back({.blocks = {.by_state = {5, 4, 1, 0}}, .block_bytes = 64, .evicted = 7});
  cache.prompt_tokens = 1000;
  cache.tokens_hit = 600;
  cache.tokens_missed = {300, 50, 20, 10, 5, 15, 0};
  cache.slots_allocated = 200;
  cache.slots_live = 150;
  cache.blocks_copied = 3;
  cache.oldest_cached_age_us = 2'500'000;
  stats.engine.scheduler = {.preemptions = 4, .promise_waits = 6, .promise_waits_expired = 1};
  stats.engine.running = 12;
  stats.engine.waiting = 34;
  stats.engine.steps = 99;
  stats.tokens_generated = 5678;
  stats.answers = 46;
  return stats;
}

api::Ending ending(api::EndReason reason) {
  return {.reason = reason,
          .stats = {.prompt_tokens = 100,
                    .tokens_cached = 64,
                    .tokens_generated = 20,
                    .promise_wait_us = 250'000,
                    .submitted_us = 1'000'000,
                    .admitted_us = 1'200'000,
                    .finished_us = 3'000'000}};
}

TEST(Metrics, text_is_well_formed_and_no_series_occurs_twice) {
  Metrics metrics(constants());
  metrics.on_answer_ended(ending(api::EndReason::kStop));
  metrics.on_response("/v1/models", 200);
  metrics.on_response("/v1/models", 200);
  metrics.on_refused("queue_full");
  const Exposition exposition = read_exposition(metrics.text(snapshot(), 3));
  EXPECT_EQ(exposition.mistakes, std::vector<std::string>{});
  EXPECT_GT(exposition.samples.size(), 100U);
}

TEST(Metrics, counters_end_in_total_and_all_names_are_ours_or_vllms) {
  const Exposition exposition = read_exposition(Metrics(constants()).text(snapshot()));
  for (const auto& [name, type] : exposition.types) {
    EXPECT_EQ(name.ends_with("_total"), type == "counter") << name;
    EXPECT_TRUE(name.starts_with("kvasir_") || name.starts_with("vllm:")) << name;
  }
}

TEST(Metrics, a_snapshot_is_shown_exactly) {
  const Exposition shown = read_exposition(Metrics(constants()).text(snapshot(), 17));
  const std::map<std::string, double> expected = {
      {R"(kvasir_kv_blocks{group="0",state="free"})", 40},
      {R"(kvasir_kv_blocks{group="0",state="sealed"})", 20},
      {R"(kvasir_kv_blocks{group="1",state="filling"})", 4},
      {R"(kvasir_kv_bytes{group="0",state="cached"})", 30 * 4096},
      {R"(kvasir_kv_blocks_capacity{group="0"})", 100},
      {R"(kvasir_kv_referenced_blocks_peak{group="0"})", 55},
      {R"(kvasir_kv_evicted_blocks_total{group="1"})", 7},
      {"kvasir_kv_prompt_tokens_total", 1000},
      {"kvasir_kv_hit_tokens_total", 600},
      {R"(kvasir_kv_missed_tokens_total{reason="never_seen"})", 300},
      {R"(kvasir_kv_missed_tokens_total{reason="last_token"})", 15},
      {"kvasir_kv_waste_ratio", 0.25},
      {"kvasir_kv_copied_blocks_total", 3},
      {"kvasir_kv_next_evicted_age_seconds", 2.5},
      {"kvasir_preemptions_total", 4},
      {"kvasir_promise_waits_total", 6},
      {"kvasir_promise_waits_expired_total", 1},
      {"kvasir_steps_total", 99},
      {"kvasir_tokens_generated_total", 5678},
      {"kvasir_answers_open", 46},
      {"kvasir_http_connections", 17}};
  for (const auto& [series, value] : expected) EXPECT_EQ(shown.at(series), value) << series;
}

TEST(Metrics, routers_find_the_names_they_read) {
  const std::string text = Metrics(constants()).text(snapshot());
  const Exposition shown = read_exposition(text);
  const std::string labels = R"({engine="0",model_name="tiny"})";
  EXPECT_EQ(shown.at("vllm:num_requests_running" + labels), 12);
  EXPECT_EQ(shown.at("vllm:num_requests_waiting" + labels), 34);
  EXPECT_EQ(shown.at("vllm:prefix_cache_queries_total" + labels), 1000);
  EXPECT_EQ(shown.at("vllm:prefix_cache_hits_total" + labels), 600);
  EXPECT_EQ(shown.at("vllm:prompt_tokens_total" + labels), 1000);
  EXPECT_EQ(shown.at("vllm:generation_tokens_total" + labels), 5678);
  EXPECT_EQ(shown.at("vllm:num_preemptions_total" + labels), 4);
  EXPECT_THAT(text, HasSubstr(R"(block_size="32",num_gpu_blocks="100",cache_dtype="bf16"} 1)"));
}

TEST(Metrics, usage_is_that_of_the_fullest_group_between_0_and_1) {
  const std::string series = R"(vllm:kv_cache_usage_perc{engine="0",model_name="tiny"})";
  const Metrics metrics(constants());
  EXPECT_EQ(read_exposition(metrics.text(snapshot())).at(series), 0.5);  // group 1: 5 of 10
  EXPECT_EQ(read_exposition(metrics.text({})).at(series), 0.0);
}

TEST(Metrics, counters_only_grow_with_their_snapshots) {
  Metrics metrics(constants());
  const Exposition before = read_exposition(metrics.text(snapshot()));
  api::ServiceStats later = snapshot();
  later.tokens_generated += 1;
  later.engine.cache.tokens_hit += 32;
  later.engine.cache.prompt_tokens += 40;
  later.engine.cache.tokens_missed[0] += 8;
  metrics.on_answer_ended(ending(api::EndReason::kLength));
  const Exposition after = read_exposition(metrics.text(later));
  size_t grown = 0;
  for (const auto& [series, value] : before.samples) {
    const auto type = before.types.find(series.substr(0, series.find('{')));
    if (type == before.types.end() || type->second != "counter") continue;
    EXPECT_GE(after.at(series), value) << series;
    if (after.at(series) > value) ++grown;
  }
  EXPECT_EQ(grown, 11U);
}

TEST(Metrics, histograms_are_cumulative_and_end_in_infinity) {
  Metrics metrics(constants());
  for (const api::EndReason reason : {api::EndReason::kStop, api::EndReason::kCancelled}) {
    metrics.on_first_token(700'000);
    metrics.on_answer_ended(ending(reason));
  }
  metrics.on_tokens(30'000, 3);
  const Exposition exposition = read_exposition(metrics.text(snapshot()));
  const auto histograms = buckets_of(exposition);
  EXPECT_EQ(histograms.size(), 7U);
  for (const auto& [name, buckets] : histograms) {
    double before = 0.0;
    for (const auto& [bound, count] : buckets) {
      EXPECT_GE(count, before) << name << " " << bound;
      before = count;
    }
    EXPECT_TRUE(std::isinf(buckets.rbegin()->first)) << name;
    EXPECT_EQ(buckets.rbegin()->second, name == "vllm:inter_token_latency_seconds" ? 3 : 2) << name;
  }
}

TEST(Metrics, an_answer_is_measured_from_its_arrival) {
  Metrics metrics(constants());
  metrics.on_answer_ended(ending(api::EndReason::kLength));
  const Exposition shown = read_exposition(metrics.text(snapshot()));
  const std::string labels = R"({engine="0",model_name="tiny"})";
  EXPECT_DOUBLE_EQ(shown.at("vllm:request_queue_time_seconds_sum" + labels), 0.2);
  EXPECT_DOUBLE_EQ(shown.at("vllm:e2e_request_latency_seconds_sum" + labels), 2.0);
  EXPECT_EQ(shown.at("vllm:request_prompt_tokens_sum" + labels), 100);
  EXPECT_EQ(shown.at("vllm:request_generation_tokens_sum" + labels), 20);
  EXPECT_EQ(shown.at("kvasir_request_cached_tokens_sum"), 64);
  EXPECT_DOUBLE_EQ(shown.at("kvasir_promise_wait_seconds_total"), 0.25);
  EXPECT_EQ(shown.at(R"(kvasir_answers_total{reason="length"})"), 1);
  EXPECT_EQ(shown.at(R"(vllm:request_success_total{engine="0",finished_reason="length",)"
                     R"(model_name="tiny"})"),
            1);
}

TEST(Metrics, a_first_token_counts_before_its_answer_has_ended) {
  Metrics metrics(constants());
  metrics.on_first_token(700'000);
  const Exposition shown = read_exposition(metrics.text(snapshot()));
  const std::string labels = R"({engine="0",model_name="tiny"})";
  EXPECT_DOUBLE_EQ(shown.at("vllm:time_to_first_token_seconds_sum" + labels), 0.7);
  EXPECT_EQ(shown.at("vllm:time_to_first_token_seconds_count" + labels), 1);
}

TEST(Metrics, an_answer_cancelled_before_it_began_is_counted_without_times) {
  Metrics metrics(constants());
  metrics.on_answer_ended({.reason = api::EndReason::kCancelled});
  const Exposition shown = read_exposition(metrics.text(snapshot()));
  EXPECT_EQ(shown.at(R"(kvasir_answers_total{reason="cancelled"})"), 1);
  EXPECT_EQ(shown.at(R"(vllm:e2e_request_latency_seconds_count{engine="0",model_name="tiny"})"), 0);
}

TEST(Metrics, tokens_that_come_together_share_one_gap) {
  Metrics metrics(constants());
  metrics.on_tokens(40'000, 1);
  metrics.on_tokens(60'000, 4);
  const Exposition shown = read_exposition(metrics.text(snapshot()));
  const std::string labels = R"({engine="0",model_name="tiny"})";
  EXPECT_EQ(shown.at("vllm:inter_token_latency_seconds_count" + labels), 5);
  EXPECT_DOUBLE_EQ(shown.at("vllm:inter_token_latency_seconds_sum" + labels), 0.1);
}

TEST(Metrics, names_in_labels_can_not_break_the_format) {
  MetricsConstants odd = constants();
  odd.model_name = "a\"b\\c\nd";
  Metrics metrics(odd);
  metrics.on_answer_ended(ending(api::EndReason::kStop));
  EXPECT_EQ(read_exposition(metrics.text(snapshot())).mistakes, std::vector<std::string>{});
}

TEST(Metrics, counts_from_many_threads_add_up) {
  Metrics metrics(constants());
  constexpr int kThreads = 4;
  constexpr int kRounds = 500;
  {
    std::array<std::jthread, kThreads> threads;
    for (std::jthread& thread : threads) {
      thread = std::jthread([&] {
        for (int i = 0; i < kRounds; ++i) {
          metrics.on_answer_ended(ending(api::EndReason::kStop));
          metrics.on_tokens(1000, 1);
          metrics.on_response("/v1/completions", 200);
          if (i % 100 != 0) continue;
          EXPECT_FALSE(metrics.text(snapshot()).empty());
        }
      });
    }
  }
  const Exposition shown = read_exposition(metrics.text(snapshot()));
  constexpr double kAll = kThreads * kRounds;
  EXPECT_EQ(shown.at(R"(kvasir_answers_total{reason="stop"})"), kAll);
  EXPECT_EQ(shown.at(R"(kvasir_http_requests_total{route="/v1/completions",status="200"})"), kAll);
  EXPECT_EQ(shown.at(R"(vllm:inter_token_latency_seconds_count{engine="0",model_name="tiny"})"),
            kAll);
}

}  // namespace
}  // namespace kvasir::serve
