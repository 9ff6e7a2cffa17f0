#include "engine/memory_plan.h"

namespace kvasir::engine {

ActivationPlan plan_activations(const model::ModelConfig& config,
                                const sched::SchedulerLimits& limits) {
  ActivationPlan plan{.terms = model::Workspace::terms(config, batch_limits(limits))};
  plan.terms.push_back(
      {"logits", uint64_t{limits.logit_rows_max} * config.vocab_size * sizeof(float)});
  for (const model::WorkspaceTerm& term : plan.terms) plan.total_bytes += term.size_bytes;
  return plan;
}

kv::GroupShape group_of(const model::ModelConfig& config, quant::KvDtype dtype) {
  return {.layers = config.layers,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .dtype = dtype};
}

model::BatchLimits batch_limits(const sched::SchedulerLimits& limits) {
  return {.rows_max = limits.rows_max(),
          .sequences_max = limits.sequences_max,
          .logit_rows_max = limits.logit_rows_max};
}

}  // namespace kvasir::engine
