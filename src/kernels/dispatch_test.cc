#include <gtest/gtest.h>

#include <set>

#include "kernels/kernels.h"

namespace kvasir::kernels {
namespace {

TEST(Dispatch, names_round_trip) {
  for (const Isa isa : {Isa::kReference, Isa::kAvx2, Isa::kAvxVnni, Isa::kAvx512, Isa::kAvx512Bf16,
                        Isa::kAmx, Isa::kNeon}) {
    EXPECT_EQ(parse_isa(isa_name(isa)), isa);
  }
  for (const AttentionOrder order : {AttentionOrder::kPairs, AttentionOrder::kTiles}) {
    EXPECT_EQ(parse_attention_order(attention_order_name(order)), order);
  }
  EXPECT_EQ(parse_attention_order("tile"), std::nullopt);
  EXPECT_EQ(parse_isa("avx"), std::nullopt);
  EXPECT_EQ(parse_isa(""), std::nullopt);
}

TEST(Dispatch, reference_is_always_there_and_slowest) {
  ASSERT_FALSE(supported_isas().empty());
  EXPECT_EQ(supported_isas().front(), Isa::kReference);
}

#if defined(KVASIR_TESTED_ISA)
TEST(Dispatch, the_tests_of_one_instruction_set_run_it) {
  EXPECT_EQ(isa_name(best_kernels().isa), KVASIR_TESTED_ISA);
}
#endif

TEST(Dispatch, forced_isa_is_the_one_that_runs) {
  for (const Isa isa : supported_isas()) {
    ASSERT_NE(find_kernels(isa), nullptr) << isa_name(isa);
    EXPECT_EQ(find_kernels(isa)->isa, isa);
  }
}

// Dots of bf16 pairs may be slower than two fmas, but nothing else is.
TEST(Dispatch, best_is_the_last_one_or_the_one_before_bf16_dots) {
  const std::vector<Isa> isas = supported_isas();
  const Isa best = best_kernels().isa;
  EXPECT_TRUE(best == isas.back() || (isas.back() == Isa::kAvx512Bf16 && best == Isa::kAvx512));
  EXPECT_EQ(best_attention_order() == AttentionOrder::kTiles, isas.back() == Isa::kAmx);
}

std::vector<void*> functions_of(Isa isa) {
  const KernelTable& table = *find_kernels(isa);
  return {
      reinterpret_cast<void*>(table.rms_norm),      reinterpret_cast<void*>(table.rope_pairs),
      reinterpret_cast<void*>(table.silu_mul),      reinterpret_cast<void*>(table.add),
      reinterpret_cast<void*>(table.quantize),      reinterpret_cast<void*>(table.linear_q8),
      reinterpret_cast<void*>(table.linear_f32),    reinterpret_cast<void*>(table.arg_max),
      reinterpret_cast<void*>(table.softmax_stats), reinterpret_cast<void*>(table.exp),
      reinterpret_cast<void*>(table.attend),        reinterpret_cast<void*>(table.attend_tiles)};
}

// The instruction sets that are another one and one thing more.
bool adds_one(Isa isa) {
  return isa == Isa::kAvxVnni || isa == Isa::kAvx512Bf16 || isa == Isa::kAmx;
}

TEST(Dispatch, tables_share_functions_only_with_what_they_are_built_on) {
  std::set<void*> seen;
  for (const Isa isa : supported_isas()) {
    size_t own = 0;
    for (void* function : functions_of(isa)) {
      ASSERT_NE(function, nullptr) << isa_name(isa);
      own += seen.insert(function).second ? 1 : 0;
    }
    EXPECT_EQ(own, adds_one(isa) ? 1 : 12) << isa_name(isa);
  }
}

TEST(Dispatch, bf16_instructions_are_used_in_their_own_order) {
  for (const Isa isa : supported_isas()) {
    const KernelTable& table = *find_kernels(isa);
    const KernelTable* avx512 = find_kernels(Isa::kAvx512);
    if (isa == Isa::kAvx512Bf16) {
      EXPECT_NE(table.attend, avx512->attend);
    }
    if (isa == Isa::kAmx) {
      EXPECT_NE(table.attend_tiles, avx512->attend_tiles);
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
