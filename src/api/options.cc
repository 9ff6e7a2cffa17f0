#include "api/options.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/checked_math.h"
#include "engine/memory_plan.h"

namespace kvasir::api {
namespace {

constexpr int kThreadsMax = 512;
constexpr uint32_t kSequencesMax = 65536;
constexpr uint64_t kDefaultKvBytesMax = uint64_t{1} << 30;

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [parsed, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || parsed != end) return std::nullopt;
  return value;
}

uint32_t processors_available() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&set)));
}

base::Result<const kernels::KernelTable*> choose_kernels(const std::string& name) {
  if (name == "auto") return &kernels::best_kernels();
  const std::optional<kernels::Isa> isa = kernels::parse_isa(name);
  const kernels::KernelTable* table = isa.has_value() ? kernels::find_kernels(*isa) : nullptr;
  if (table != nullptr) return table;
  std::string known;
  for (const kernels::Isa supported : kernels::supported_isas()) {
    known += fmt::format(", {}", kernels::isa_name(supported));
  }
  return base::bad_input(fmt::format("--isa {}: not available here; use auto{}", name, known));
}

base::Result<kernels::AttentionOrder> choose_attention_order(const std::string& name) {
  if (name == "auto") return kernels::best_attention_order();
  if (const auto order = kernels::parse_attention_order(name)) return *order;
  return base::bad_input(fmt::format("--attention-order {}: use auto, pairs or tiles", name));
}

base::Status parse_cache_flags(const EngineFlags& flags, EngineOptions& options) {
  const auto mode = kv::parse_cache_mode(flags.kv);
  if (!mode) {
    return base::bad_input(
        fmt::format("--kv {}: no such mode; use none, contiguous or paged", flags.kv));
  }
  const auto dtype = quant::parse_kv_dtype(flags.kv_dtype);
  if (!dtype) {
    return base::bad_input(
        fmt::format("--kv-dtype {}: not supported; use bf16, f32 or int8", flags.kv_dtype));
  }
  if (flags.block_tokens != 16 && flags.block_tokens != 32) {
    return base::bad_input(fmt::format("--block-tokens {}: use 16 or 32", flags.block_tokens));
  }
  options.kv_mode = *mode;
  options.kv_dtype = *dtype;
  options.block_tokens = flags.block_tokens;
  if (!flags.kv_memory.empty()) {
    auto bytes = parse_bytes(flags.kv_memory);
    if (!bytes) return base::bad_input("--kv-memory " + bytes.error().message);
    options.kv_memory_bytes = *bytes;
  }
  return {};
}

base::Status parse_compute_flags(const EngineFlags& flags, EngineOptions& options) {
  if (flags.weights != "native" && flags.weights != "f32") {
    return base::bad_input(fmt::format("--weights {}: use native or f32", flags.weights));
  }
  options.weights = flags.weights == "f32" ? load::WeightsMode::kF32 : load::WeightsMode::kNative;
  if (flags.threads < 0 || flags.threads > kThreadsMax) {
    return base::bad_input(fmt::format("--threads {}: use 1 to {}", flags.threads, kThreadsMax));
  }
  options.threads =
      flags.threads == 0 ? processors_available() : static_cast<uint32_t>(flags.threads);
  if (flags.pin_threads) options.placement = base::Placement::kOneProcessorEach;
  ASSIGN_OR_RETURN(options.kernels, choose_kernels(flags.isa));
  ASSIGN_OR_RETURN(options.attention_order, choose_attention_order(flags.attention_order));
  if (flags.prefill_chunk != "all") {
    const auto chunk = parse_number<uint32_t>(flags.prefill_chunk);
    if (!chunk || *chunk == 0) {
      return base::bad_input(fmt::format(
          "--prefill-chunk {}: use a number of tokens from 1, or all", flags.prefill_chunk));
    }
    options.prefill_chunk = *chunk;
  }
  return {};
}

// The budget when none is given.
uint64_t default_kv_bytes(const EngineOptions& options, const kv::BlockLayout& layout,
                          uint32_t context) {
  if (options.kv_tokens.has_value()) {
    return layout.blocks_for(*options.kv_tokens) * layout.block_bytes();
  }
  const uint64_t full = layout.blocks_for(context) * layout.block_bytes();
  return std::min(full, kDefaultKvBytesMax);
}

}  // namespace

base::Result<uint64_t> parse_bytes(std::string_view text) {
  const auto fail = [&] {
    return base::bad_input(fmt::format(
        "{}: not a size; use a number of bytes, or one with KB, KiB, MB, MiB, GB or GiB", text));
  };
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto number = parse_number<uint64_t>(text.substr(0, digits));
  if (!number || *number == 0) return fail();
  std::string suffix;
  for (const char c : text.substr(digits)) {
    suffix.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  }
  // A bare letter is binary, as in other engines' options.
  const std::pair<std::string_view, uint64_t> units[] = {
      {"", 1},         {"b", 1},       {"kb", 1000},     {"k", 1 << 10},     {"kib", 1 << 10},
      {"mb", 1000000}, {"m", 1 << 20}, {"mib", 1 << 20}, {"gb", 1000000000}, {"g", 1 << 30},
      {"gib", 1 << 30}};
  for (const auto& [name, factor] : units) {
    if (suffix != name) continue;
    const auto bytes = base::checked_mul(*number, factor);
    if (!bytes || *bytes > (uint64_t{1} << 63)) return fail();
    return *bytes;
  }
  return fail();
}

base::Result<EngineOptions> parse_options(const EngineFlags& flags) {
  EngineOptions options;
  options.model_path = flags.model;
  RETURN_IF_ERROR(parse_cache_flags(flags, options));
  RETURN_IF_ERROR(parse_compute_flags(flags, options));
  if (flags.max_sequences == 0 || flags.max_sequences > kSequencesMax) {
    return base::bad_input(
        fmt::format("--max-sequences {}: use 1 to {}", flags.max_sequences, kSequencesMax));
  }
  options.sequences_max = flags.max_sequences;
  if (flags.context != 0) options.context = flags.context;
  return options;
}

base::Result<EnginePlan> plan_engine(const EngineOptions& options,
                                     const model::ModelConfig& config) {
  const uint32_t context = options.context.value_or(config.context_length);
  if (context > config.context_length) {
    return base::bad_input(
        fmt::format("--context {}: the model was trained for {}; use at most that", context,
                    config.context_length));
  }
  const kv::GroupShape group = engine::group_of(config, options.kv_dtype);
  const kv::BlockLayout layout(group, options.block_tokens);
  const uint32_t sequences = options.sequences_max;
  EnginePlan plan;
  plan.cache = {
      .mode = options.kv_mode,
      .groups = {group},
      .block_tokens = options.block_tokens,
      .budget_bytes = options.kv_memory_bytes.value_or(default_kv_bytes(options, layout, context)),
      .sequences_max = sequences,
      .sequence_tokens_max = context,
      .verify = options.kv_verify};
  plan.cache.publish = options.kv_publish.value_or(plan.cache.publish);
  plan.cache.contiguous_run = options.kv_contiguous_run.value_or(plan.cache.contiguous_run);
  plan.limits = {.requests_max = std::max(options.requests_max, sequences),
                 .sequences_max = sequences,
                 .prefill_chunk = std::min(options.prefill_chunk.value_or(context), context),
                 .logit_rows_max = std::max(options.logit_rows_max, sequences),
                 .step_target_us = options.step_target_us,
                 .tenant_weights = options.tenant_weights};
  return plan;
}

}  // namespace kvasir::api
