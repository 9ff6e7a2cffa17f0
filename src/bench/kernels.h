// What the parts of `bench kernels` share: the setting of a run and the comparison of one kernel
// with its limit.
//
// Thread: one caller, which is in base::ScopedFpEnv. Allocates: freely.
#pragma once

#include <functional>
#include <optional>
#include <string_view>
#include <vector>

#include "bench/machine_limits.h"
#include "bench/workloads.h"

namespace kvasir::bench {

struct KernelSetting {
  const BenchHooks& hooks;
  const kernels::KernelTable& kernels;
  const api::EngineOptions& engine;
  base::ThreadPool& pool;
  MachineLimits& limits;
  uint32_t rounds = 0;
};

// What one sample of a kernel does, and which limit it is compared with.
struct KernelWork {
  double bytes = 0.0;  // that must come from memory
  double macs = 0.0;
  std::optional<DotKind> peak;  // nullopt: reading
};

// The head of a result line.
boost::json::object kernel_line(const KernelSetting& setting, std::string_view name,
                                size_t threads);
// Three members: the median as `key`, the others as `key`_min and `key`_max.
void put_spread(boost::json::object& line, std::string_view key, const Spread& spread);

// Measures `sample` between two samples of its limit, in every round, and reports the line.
// Returns the seconds of a sample. Error: Ctrl-C was pressed.
base::Result<double> report_share(const KernelSetting& setting, const KernelWork& work,
                                  boost::json::object line, const std::function<void()>& sample);

// Packing of stored weights; linear layers of many shapes; attention of one model.
base::Status report_packs(const KernelSetting& setting);
base::Status report_linears(const KernelSetting& setting);
base::Status report_attentions(const KernelSetting& setting);

// The dot product that attention over the dtype in use runs with. kInt8: that of its values, in
// f32; its keys take int8 dots, which cost a fraction of it.
DotKind attention_dot(const api::EngineOptions& engine);

// The same for the same index.
uint32_t random_word(uint64_t index);
std::vector<float> random_floats(size_t count);  // in [-1, 1)

}  // namespace kvasir::bench
