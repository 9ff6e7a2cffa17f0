#include "sched/step_costs.h"

#include <algorithm>
#include <bit>

namespace kvasir::sched {
namespace {

constexpr double kSmoothing = 0.2;

void learn(double& mean, double value) {
  mean = mean == 0.0 ? value : mean + kSmoothing * (value - mean);
}

}  // namespace

size_t StepCosts::bucket_of(uint32_t decode_rows) {
  if (decode_rows == 0) return 0;
  return std::min<size_t>(std::bit_width(decode_rows - 1) + 1, kBuckets - 1);
}

// Of the nearest step that was measured: a smaller one as it is, a larger one by its rows.
double StepCosts::decode_us(uint32_t decode_rows) const {
  const size_t bucket = bucket_of(decode_rows);
  if (bucket == 0) return 0.0;
  for (size_t smaller = bucket; smaller > 0; --smaller) {
    if (decode_us_[smaller] > 0.0) return decode_us_[smaller];
  }
  for (size_t larger = bucket + 1; larger < kBuckets; ++larger) {
    const auto rows = static_cast<double>(uint64_t{1} << (larger - 1));
    if (decode_us_[larger] > 0.0) return decode_us_[larger] * decode_rows / rows;
  }
  return 0.0;
}

// Steps that mostly decode say little about how long a prompt takes, and the other way round.
void StepCosts::note(uint32_t decode_rows, uint32_t prompt_rows, uint64_t step_us) {
  const auto us = static_cast<double>(step_us);
  if (prompt_rows < decode_rows) {
    const double prompt_us = prompt_rows * prompt_row_us_;
    learn(decode_us_[bucket_of(decode_rows)], std::max(us - prompt_us, us / 2));
  } else if (prompt_rows > 0) {
    learn(prompt_row_us_, std::max(us - decode_us(decode_rows), us / 2) / prompt_rows);
  }
}

uint32_t StepCosts::prompt_rows_within(uint32_t decode_rows, uint64_t target_us) const {
  if (prompt_row_us_ == 0.0) return UINT32_MAX;
  const double left_us = static_cast<double>(target_us) - decode_us(decode_rows);
  if (left_us <= 0.0) return 0;
  return static_cast<uint32_t>(std::min(left_us / prompt_row_us_, 4e9));
}

}  // namespace kvasir::sched
