// Angles of rotary position embedding. Thread: immutable after construction.
#pragma once

#include <span>
#include <vector>

#include "model/config.h"

namespace kvasir::model {

class RopeTable {
 public:
  explicit RopeTable(const RopeConfig& config);

  size_t pairs() const { return frequencies_.size(); }

  // cos and sin of every pair's angle at `position`. The angle is one f32 product, position times
  // frequency, as in the reference implementations the models were trained with.
  //   cos, sin  [pairs()]
  void angles_at(uint32_t position, std::span<float> cos, std::span<float> sin) const;

 private:
  std::vector<float> frequencies_;  // radians per position
};

}  // namespace kvasir::model
