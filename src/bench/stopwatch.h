// How long something took, for figures finer than a clock of microseconds.
// Thread: any. Allocates: never.
#pragma once

#include <chrono>

namespace kvasir::bench {

using SteadyTime = std::chrono::steady_clock::time_point;

inline SteadyTime start_stopwatch() {
  return std::chrono::steady_clock::now();
}
inline double seconds_since(SteadyTime start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace kvasir::bench
