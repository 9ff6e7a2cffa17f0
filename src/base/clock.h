// Time comes in through this seam, so that simulations can own it.
#pragma once

#include <cstdint>

namespace kvasir::base {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual uint64_t now_us() const = 0;  // monotonic
};

class SteadyClock final : public Clock {
 public:
  uint64_t now_us() const override;
};

}  // namespace kvasir::base
