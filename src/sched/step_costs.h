// How long steps take, learned from those that were made: decode rows by how many go together,
// prompt rows beside them. Answers how many prompt rows a step may take to end in time.
//
// Thread: one owner. Allocates: never.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace kvasir::sched {

class StepCosts {
 public:
  // A step has taken so long.
  void note(uint32_t decode_rows, uint32_t prompt_rows, uint64_t step_us);

  // 0: not known yet.
  double prompt_row_us() const { return prompt_row_us_; }
  // Prompt rows that fit beside the decode rows; all of them while nothing is known.
  uint32_t prompt_rows_within(uint32_t decode_rows, uint64_t target_us) const;

 private:
  static constexpr size_t kBuckets = 17;  // 0, 1, 2, 3-4, 5-8 ... rows
  static size_t bucket_of(uint32_t decode_rows);
  double decode_us(uint32_t decode_rows) const;

  std::array<double, kBuckets> decode_us_{};  // of a step without prompt rows; 0: not known yet
  double prompt_row_us_ = 0.0;
};

}  // namespace kvasir::sched
