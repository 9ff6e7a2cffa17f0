#include "model/rope.h"

#include "base/check.h"
#include "base/math.h"

namespace kvasir::model {

RopeTable::RopeTable(const RopeConfig& config) {
  CHECK(config.rotated_dims % 2 == 0);
  const uint32_t pairs = config.rotated_dims / 2;
  CHECK(config.frequency_factors.empty() || config.frequency_factors.size() == pairs);
  frequencies_.reserve(pairs);
  for (uint32_t i = 0; i < pairs; ++i) {
    const double exponent = -2.0 * i / config.rotated_dims;
    auto frequency = static_cast<float>(base::pow_exact(double{config.base}, exponent));
    if (!config.frequency_factors.empty()) frequency /= config.frequency_factors[i];
    frequencies_.push_back(frequency / config.linear_factor);
  }
}

void RopeTable::angles_at(uint32_t position, std::span<float> cos, std::span<float> sin) const {
  CHECK(cos.size() == pairs());
  CHECK(sin.size() == pairs());
  for (size_t i = 0; i < pairs(); ++i) {
    const float angle = static_cast<float>(position) * frequencies_[i];
    const base::SinCos both = base::sincos_exact(double{angle});
    cos[i] = static_cast<float>(both.cos);
    sin[i] = static_cast<float>(both.sin);
  }
}

}  // namespace kvasir::model
