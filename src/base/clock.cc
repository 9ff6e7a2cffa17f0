#include "base/clock.h"

#include <chrono>

namespace kvasir::base {

uint64_t SteadyClock::now_us() const {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(now).count());
}

}  // namespace kvasir::base
