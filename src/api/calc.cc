#include "api/calc.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/checked_math.h"
#include "engine/memory_plan.h"
#include "load/read_config.h"
#include "load/weights_plan.h"

namespace kvasir::api {
namespace {

constexpr uint64_t kBlockAlignmentBytes = 64;
constexpr uint64_t kScaleBytes = sizeof(float);
constexpr uint64_t kShapeTokensDefault = 4096;
// Beyond these no product below is meaningful; they keep rows and sequences in 32 bits.
constexpr uint64_t kDimensionMax = uint64_t{1} << 20;
constexpr uint64_t kTokensMax = uint64_t{1} << 30;
constexpr uint64_t kSequencesMax = uint64_t{1} << 20;

// A product and sum that remembers having overflowed.
class Checked {
 public:
  explicit Checked(uint64_t value) : value_(value) {}
  Checked operator*(uint64_t factor) const {
    return Checked(value_ ? base::checked_mul(*value_, factor) : std::nullopt);
  }
  Checked operator+(const Checked& other) const {
    if (!value_ || !other.value_) return Checked(std::nullopt);
    return Checked(base::checked_add(*value_, *other.value_));
  }
  const std::optional<uint64_t>& value() const { return value_; }

 private:
  explicit Checked(std::optional<uint64_t> value) : value_(value) {}
  std::optional<uint64_t> value_;
};

base::Status check_range(const char* flag, uint64_t value, uint64_t max) {
  if (value >= 1 && value <= max) return {};
  return base::bad_input(fmt::format("{} {}: use 1 to {}", flag, value, max));
}

base::Status check_demand(const KvDemand& demand) {
  RETURN_IF_ERROR(check_range("--layers", demand.layers, kDimensionMax));
  RETURN_IF_ERROR(check_range("--kv-heads", demand.kv_heads, kDimensionMax));
  RETURN_IF_ERROR(check_range("--head-dim", demand.head_dim, kDimensionMax));
  RETURN_IF_ERROR(check_range("--tokens", demand.tokens, kTokensMax));
  RETURN_IF_ERROR(check_range("--sequences", demand.sequences, kSequencesMax));
  if (demand.block_tokens == 16 || demand.block_tokens == 32) return {};
  return base::bad_input(fmt::format("--block-tokens {}: use 16 or 32", demand.block_tokens));
}

base::Result<CalcReport> report_kv(const CalcRequest& request, const KvShape& shape,
                                   CalcDtype default_dtype, uint64_t default_tokens) {
  CalcReport report;
  report.demand = {.layers = shape.layers,
                   .kv_heads = shape.kv_heads,
                   .head_dim = shape.head_dim,
                   .dtype = request.dtype.value_or(default_dtype),
                   .tokens = request.tokens.value_or(default_tokens),
                   .sequences = request.sequences,
                   .block_tokens = request.block_tokens};
  RETURN_IF_ERROR(check_demand(report.demand));
  ASSIGN_OR_RETURN(report.kv, plan_kv(report.demand));
  return report;
}

KvShape shape_of(const model::ModelConfig& config) {
  return {.layers = config.layers, .kv_heads = config.kv_heads, .head_dim = config.head_dim};
}

void add_activations(const model::ModelConfig& config, const sched::SchedulerLimits& limits,
                     CalcReport& report) {
  const engine::ActivationPlan plan = engine::plan_activations(config, limits);
  for (const model::WorkspaceTerm& term : plan.terms) {
    report.activation_terms.push_back({term.name, term.size_bytes});
  }
  report.activations_bytes = plan.total_bytes;
}

base::Status add_total(CalcReport& report) {
  const auto total = (Checked(*report.weights_bytes) + Checked(report.kv.total) +
                      Checked(*report.activations_bytes))
                         .value();
  if (!total) return base::bad_input("the sum exceeds 2^64 bytes; ask for less");
  report.total_bytes = *total;
  return {};
}

// `sequences` of the limits take part in a step beside one chunk of prompt.
sched::SchedulerLimits limits_for(uint64_t tokens, uint32_t chunk, uint32_t sequences) {
  const auto context = static_cast<uint32_t>(tokens);
  return {.requests_max = sequences,
          .sequences_max = sequences,
          .prefill_chunk = chunk == 0 ? context : std::min(chunk, context),
          .logit_rows_max = sequences};
}

base::Result<CalcReport> calculate_model(const CalcRequest& request) {
  ASSIGN_OR_RETURN(const gguf::GgufFile file, gguf::GgufFile::open(*request.model_path));
  ASSIGN_OR_RETURN(const model::ModelConfig config, load::read_config(file));
  ASSIGN_OR_RETURN(CalcReport report,
                   report_kv(request, shape_of(config), CalcDtype::kBF16, config.context_length));
  report.name = *request.model_path;
  ASSIGN_OR_RETURN(const load::WeightsPlan weights,
                   load::plan_weights(file, config, request.weights));
  report.parameters = weights.parameters;
  report.weights_bytes = weights.arena_bytes;
  ASSIGN_OR_RETURN(const EngineOptions defaults, parse_options(EngineFlags{}));
  const uint32_t chunk = request.prefill_chunk.value_or(defaults.prefill_chunk.value_or(0));
  const uint32_t sequences = request.sequences_max.value_or(
      std::max(defaults.sequences_max, static_cast<uint32_t>(request.sequences)));
  add_activations(config, limits_for(report.demand.tokens, chunk, sequences), report);
  RETURN_IF_ERROR(add_total(report));
  return report;
}

base::Result<CalcReport> calculate_preset(const CalcRequest& request) {
  const std::optional<Preset> preset = find_preset(*request.preset);
  if (!preset) {
    std::string known;
    for (const Preset& other : presets()) known += fmt::format(" {}", other.name);
    return base::bad_input(fmt::format("--preset {}: unknown; known:{}", *request.preset, known));
  }
  ASSIGN_OR_RETURN(CalcReport report, report_kv(request, shape_of(preset->config), CalcDtype::kF16,
                                                preset->config.context_length));
  report.name = preset->name;
  report.parameters = parameter_count(*preset);
  report.weights_bytes = *report.parameters * element_bytes(request.weights_dtype);
  add_activations(preset->config,
                  limits_for(report.demand.tokens, request.prefill_chunk.value_or(0),
                             static_cast<uint32_t>(request.sequences)),
                  report);
  RETURN_IF_ERROR(add_total(report));
  return report;
}

}  // namespace

base::Result<KvBytes> plan_kv(const KvDemand& demand) {
  const uint64_t scale_bytes = demand.dtype == CalcDtype::kInt8 ? kScaleBytes : 0;
  const uint64_t blocks_each = base::div_ceil(demand.tokens, demand.block_tokens);
  const auto head_rows = Checked(2) * demand.kv_heads;  // a key and a value of each head
  const auto payload_layer = head_rows * demand.head_dim * element_bytes(demand.dtype);
  const auto payload_token = payload_layer * demand.layers;
  const auto scales_token = head_rows * scale_bytes * demand.layers;
  const auto token = payload_token + scales_token;
  const auto block = token * demand.block_tokens + Checked(kBlockAlignmentBytes - 1);
  const uint64_t block_bytes = block.value().value_or(0) & ~(kBlockAlignmentBytes - 1);
  const auto total = Checked(block_bytes) * blocks_each * demand.sequences;
  const auto used = token * demand.tokens * demand.sequences;
  if (!block.value() || !total.value() || !used.value()) {
    return base::bad_input("the KV cache exceeds 2^64 bytes; ask for less");
  }
  // `used` did not overflow, so neither do its parts.
  return KvBytes{.per_token_layer = *(payload_layer + head_rows * scale_bytes).value(),
                 .per_token = *token.value(),
                 .payload = *(payload_token * demand.tokens * demand.sequences).value(),
                 .scales = *(scales_token * demand.tokens * demand.sequences).value(),
                 .padding = *total.value() - *used.value(),
                 .total = *total.value()};
}

base::Result<CalcReport> calculate(const CalcRequest& request) {
  if (request.model_path) return calculate_model(request);
  if (request.preset) return calculate_preset(request);
  return report_kv(request, *request.shape, CalcDtype::kF16, kShapeTokensDefault);
}

}  // namespace kvasir::api
