#include <algorithm>
#include <fstream>
#include <string>

#include "base/rng.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

// The value of the first "key : value" line of /proc/cpuinfo; empty where there is none.
std::string cpu_field(const std::string& key) {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (colon == std::string::npos || line.compare(0, key.size(), key) != 0) continue;
    if (line.find_first_not_of(" \t", key.size()) != colon) continue;
    const size_t begin = line.find_first_not_of(' ', colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

}  // namespace

std::vector<Workload> workloads() {
  return {
      {"prefill", "prompt tokens per second (--tokens, --depth)", bench_prefill},
      {"decode", "generated tokens per second of one sequence (--generate, --depth)", bench_decode},
      {"batch",
       "all tokens per second of many sequences (--sequences, --tokens, --generate, --depth in "
       "common)",
       bench_batch},
      {"modes", "what a KV cache saves and costs: none, contiguous and paged (--generate)",
       bench_modes},
      {"prefix",
       "time to first token with a shared prefix (--tokens, --sequences, --generate, --repeat)",
       bench_prefix},
      {"paging",
       "requests over time in little memory, contiguous and paged (--sequences requests, --rate)",
       bench_paging, 256},
      {"sharing", "memory that parallel samples and beams share (--sequences requests)",
       bench_sharing},
      {"turns",
       "long chats side by side (--sequences users, --repeat turns, --tokens new in each turn)",
       bench_turns},
      {"contract", "questions about one long document (--tokens of it, --repeat questions)",
       bench_contract},
      {"index", "match, insert and evict by size of the cache (--tokens blocks, --repeat rounds)",
       bench_index},
      {"kernels", "limits of this machine and what the kernels reach of them (--threads, --isa)",
       bench_kernels},
      {"slope", "how a token's cost grows with its context (--depth, --tokens, --generate)",
       bench_slope}};
}

std::vector<TokenId> prompt_tokens(const api::Llm& llm, uint64_t stream, uint32_t count) {
  const text::Vocab& vocab = llm.tokenizer().vocab();
  const bool any_normal = std::ranges::count(vocab.types, text::TokenType::kNormal) > 0;
  std::vector<TokenId> tokens;
  tokens.reserve(count);
  for (uint64_t draw = 0; tokens.size() < count; ++draw) {
    const uint32_t bits = base::random_bits({.seed = stream}, draw)[0];
    const size_t id = bits % vocab.tokens.size();
    if (!any_normal || vocab.types[id] == text::TokenType::kNormal)
      tokens.push_back(static_cast<TokenId>(id));
  }
  return tokens;
}

Spread spread_of(std::vector<double> values) {
  CHECK(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  const double median =
      values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2.0;
  return {values.front(), median, values.back()};
}

void show_progress(const BenchHooks& hooks, std::string_view text) {
  if (hooks.on_progress) hooks.on_progress(text);
}

base::Status check_cancelled(const BenchHooks& hooks) {
  if (hooks.cancelled && hooks.cancelled()) return base::runtime_error("interrupted");
  return {};
}

boost::json::object machine_line(std::string_view bench, std::string_view name) {
  return {{"bench", bench},
          {"case", name},
          {"cpu", cpu_field("model name")},
          {"cpu_family", cpu_field("cpu family")},
          {"cpu_model", cpu_field("model")}};
}

boost::json::object result_line(std::string_view bench, std::string_view name,
                                const api::Llm& llm) {
  const api::MemoryUse memory = llm.memory_use();
  boost::json::object line = machine_line(bench, name);
  line["model"] = llm.config().name.empty() ? llm.options().model_path : llm.config().name;
  line["isa"] = kernels::isa_name(llm.options().kernels->isa);
  line["attention_order"] = kernels::attention_order_name(llm.options().attention_order);
  line["threads"] = llm.options().threads;
  line["kv"] = kv::cache_mode_name(llm.options().kv_mode);
  line["kv_dtype"] = quant::kv_dtype_name(llm.options().kv_dtype);
  line["block_tokens"] = llm.options().block_tokens;
  line["memory"] = {{"weights_bytes", memory.weights_bytes},
                    {"kv_bytes", memory.kv_bytes},
                    {"activations_bytes", memory.activations_bytes},
                    {"total_bytes", memory.total_bytes()}};
  return line;
}

}  // namespace kvasir::bench
