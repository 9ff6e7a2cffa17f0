// The one floating-point environment in which anything that reaches logits is computed:
// round to nearest even, denormals flushed to zero on input and output, no traps. A thread enters
// it once for its whole life as a compute thread (worker start, engine start, model load, tests).
//
// Thread: affects the calling thread only. Allocates: never.
#pragma once

#include <cstdint>

namespace kvasir::base {

class ScopedFpEnv {
 public:
  ScopedFpEnv();
  ~ScopedFpEnv();
  ScopedFpEnv(const ScopedFpEnv&) = delete;
  ScopedFpEnv& operator=(const ScopedFpEnv&) = delete;

 private:
  uint64_t saved_;
};

}  // namespace kvasir::base
