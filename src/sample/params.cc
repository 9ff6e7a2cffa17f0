#include "sample/params.h"

#include <fmt/format.h>

#include <cmath>

namespace kvasir::sample {
namespace {

constexpr size_t kLogitBiasMax = 1024;

base::Status check_range(const char* name, float value, float low, float high) {
  // Written so that NaN fails.
  if (std::isfinite(value) && value >= low && value <= high) return {};
  return base::bad_input(
      fmt::format("{} is {}; give a number from {} to {}", name, value, low, high));
}

}  // namespace

base::Status check(const SamplingParams& params, uint32_t vocab_size) {
  RETURN_IF_ERROR(check_range("temperature", params.temperature, 0.0F, 100.0F));
  RETURN_IF_ERROR(check_range("top_p", params.top_p, 1e-6F, 1.0F));
  RETURN_IF_ERROR(check_range("min_p", params.min_p, 0.0F, 0.999F));
  RETURN_IF_ERROR(check_range("repetition_penalty", params.repetition_penalty, 0.01F, 100.0F));
  RETURN_IF_ERROR(check_range("presence_penalty", params.presence_penalty, -2.0F, 2.0F));
  RETURN_IF_ERROR(check_range("frequency_penalty", params.frequency_penalty, -2.0F, 2.0F));
  if (params.logit_bias.size() > kLogitBiasMax) {
    return base::bad_input(fmt::format("logit_bias has {} entries; give at most {}",
                                       params.logit_bias.size(), kLogitBiasMax));
  }
  for (const LogitBias& entry : params.logit_bias) {
    if (entry.token < 0 || static_cast<uint32_t>(entry.token) >= vocab_size) {
      return base::bad_input(
          fmt::format("logit_bias names token {}; ids are 0 to {}", entry.token, vocab_size - 1));
    }
    RETURN_IF_ERROR(check_range("logit_bias", entry.bias, -100.0F, 100.0F));
  }
  return {};
}

}  // namespace kvasir::sample
