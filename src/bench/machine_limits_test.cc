#include "bench/machine_limits.h"

#include <gtest/gtest.h>

#include <vector>

namespace kvasir::bench {
namespace {

TEST(MachineLimits, memory_goes_round_before_anything_is_handed_out_again) {
  base::ThreadPool pool(2);
  MachineLimits limits = MachineLimits::create(pool, kernels::Isa::kReference).value();
  constexpr size_t kSize = size_t{100} << 20;
  constexpr size_t kAlignment = 1088;
  const std::byte* const first = limits.next(kSize, kAlignment).data();
  const std::byte* last = first;
  size_t handed_out = 1;
  for (const std::byte* here = limits.next(kSize, kAlignment).data(); here != first;
       here = limits.next(kSize, kAlignment).data()) {
    ASSERT_GE(here, last + kSize);
    ASSERT_EQ(static_cast<size_t>(here - first) % kAlignment, 0U);
    last = here;
    ++handed_out;
  }
  EXPECT_EQ(handed_out, MachineLimits::kMemoryBytes / kSize);
}

TEST(MachineLimits, a_pattern_fills_the_memory_to_its_end) {
  base::ThreadPool pool(2);
  MachineLimits limits = MachineLimits::create(pool, kernels::Isa::kReference).value();
  std::vector<std::byte> pattern(1'000'003);
  for (size_t i = 0; i < pattern.size(); ++i) pattern[i] = static_cast<std::byte>(i * 7 + i / 256);
  limits.fill(pattern);
  const std::span<const std::byte> memory = limits.next(MachineLimits::kMemoryBytes, 64);
  for (size_t i = 0; i < memory.size(); i += 4093) {
    ASSERT_EQ(memory[i], pattern[i % pattern.size()]) << i;
  }
  EXPECT_EQ(memory.back(), pattern[(memory.size() - 1) % pattern.size()]);
}

TEST(MachineLimits, every_fast_instruction_set_has_peaks_that_its_kernels_are_compared_with) {
  base::ThreadPool pool(1);
  MachineLimits limits = MachineLimits::create(pool, kernels::Isa::kReference).value();
  for (const kernels::Isa isa : kernels::supported_isas()) {
    for (const DotKind kind : {DotKind::kInt8, DotKind::kF32}) {
      const DotInstruction* dot = find_dot(isa, kind);
      ASSERT_EQ(dot != nullptr, isa != kernels::Isa::kReference) << kernels::isa_name(isa);
      if (dot == nullptr) continue;
      EXPECT_GT(limits.dot_gmac_s(*dot, 1), 0.0) << dot->name;
    }
  }
}

}  // namespace
}  // namespace kvasir::bench
