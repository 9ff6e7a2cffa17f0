// The metrics that are read from a snapshot of the engine instead of being counted.
//
// Thread: any; pure functions. Allocates: freely.
#pragma once

#include <prometheus/metric_family.h>

#include <string>
#include <vector>

#include "api/service.h"

namespace kvasir::serve {

// kvasir_*: the cache and the engine.
std::vector<prometheus::MetricFamily> engine_families(const api::ServiceStats& stats);
// vllm:*: what others call the same.
std::vector<prometheus::MetricFamily> vllm_families(const api::ServiceStats& stats,
                                                    const std::string& model_name);

// One series. Labels in the order in which they are to be written.
prometheus::MetricFamily info_family(const std::string& name, const std::string& help,
                                     std::vector<prometheus::ClientMetric::Label> labels);
prometheus::MetricFamily gauge_family(const std::string& name, const std::string& help,
                                      double value);

// The share of the fullest group's blocks that some sequence holds.
double cache_usage(const kv::CacheStats& cache);

}  // namespace kvasir::serve
