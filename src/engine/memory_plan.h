// How many bytes a configuration takes, before any of it is taken. The engine allocates exactly
// what is planned here; `kvasir calc` prints it.
//
// Thread: any. Allocates: small vectors.
#pragma once

#include <cstdint>
#include <vector>

#include "kv/layout.h"
#include "model/config.h"
#include "model/workspace.h"
#include "sched/scheduler.h"

namespace kvasir::engine {

struct ActivationPlan {
  std::vector<model::WorkspaceTerm> terms;  // the last one: logits
  uint64_t total_bytes = 0;
};

ActivationPlan plan_activations(const model::ModelConfig& config,
                                const sched::SchedulerLimits& limits);

// The keys and values of one KV group of the model, as its one group is today.
kv::GroupShape group_of(const model::ModelConfig& config, quant::KvDtype dtype);

model::BatchLimits batch_limits(const sched::SchedulerLimits& limits);

}  // namespace kvasir::engine
