#include "api/calc.h"

#include <gtest/gtest.h>

#include "engine/memory_plan.h"

namespace kvasir::api {
namespace {

CalcReport report_of(const CalcRequest& request) {
  const auto report = calculate(request);
  EXPECT_TRUE(report.has_value()) << report.error().message;
  return report.value_or(CalcReport{});
}

TEST(Calc, a_7b_model_takes_half_a_megabyte_per_token) {
  const CalcReport report =
      report_of({.preset = "llama-7b", .dtype = CalcDtype::kF16, .tokens = 4096});
  EXPECT_EQ(report.kv.per_token_layer, 16384u);
  EXPECT_EQ(report.kv.per_token, 524288u);
  EXPECT_EQ(report.kv.payload, 2147483648u);
  EXPECT_EQ(report.kv.total, 2147483648u);
  EXPECT_NEAR(static_cast<double>(*report.weights_bytes), 14e9, 1e9);
  EXPECT_NEAR(static_cast<double>(*report.activations_bytes), 1e9, 0.2e9);
  EXPECT_EQ(*report.total_bytes,
            *report.weights_bytes + report.kv.total + *report.activations_bytes);
}

TEST(Calc, grouped_queries_shrink_the_cache_of_a_70b_model) {
  const CalcReport report = report_of({.preset = "llama-2-70b", .tokens = 131072});
  EXPECT_EQ(report.demand.layers, 80u);
  EXPECT_EQ(report.demand.kv_heads, 8u);
  EXPECT_EQ(report.demand.head_dim, 128u);
  EXPECT_EQ(report.kv.payload, 42949672960u);
}

TEST(Calc, preset_parameters_are_those_published) {
  const std::pair<const char*, uint64_t> published[] = {
      {"llama-7b", 6738415616},       {"llama-13b", 13015864320},     {"llama-2-70b", 68976648192},
      {"llama-3-8b", 8030261248},     {"llama-3.1-70b", 70553706496}, {"mistral-7b", 7241732096},
      {"tinyllama-1.1b", 1100048384}, {"smollm2-135m", 134515008}};
  ASSERT_EQ(presets().size(), std::size(published));
  for (const auto& [name, parameters] : published) {
    const auto preset = find_preset(name);
    ASSERT_TRUE(preset.has_value()) << name;
    EXPECT_EQ(parameter_count(*preset), parameters) << name;
  }
}

TEST(Calc, eight_bit_payload_is_exactly_half_and_only_int8_has_scales) {
  const KvShape shape{.layers = 30, .kv_heads = 3, .head_dim = 64};
  const auto kv_of = [&](CalcDtype dtype) {
    return report_of({.shape = shape, .dtype = dtype, .tokens = 1000, .sequences = 7}).kv;
  };
  const KvBytes f16 = kv_of(CalcDtype::kF16);
  EXPECT_EQ(f16.payload, uint64_t{2} * 30 * 3 * 64 * 2 * 1000 * 7);
  EXPECT_EQ(f16.scales, 0u);
  EXPECT_EQ(kv_of(CalcDtype::kBF16).payload, f16.payload);
  EXPECT_EQ(kv_of(CalcDtype::kF32).payload, 2 * f16.payload);
  EXPECT_EQ(kv_of(CalcDtype::kFp8).payload * 2, f16.payload);
  EXPECT_EQ(kv_of(CalcDtype::kFp8).scales, 0u);
  const KvBytes int8 = kv_of(CalcDtype::kInt8);
  EXPECT_EQ(int8.payload * 2, f16.payload);
  EXPECT_EQ(int8.scales, uint64_t{2} * 30 * 3 * 4 * 1000 * 7);
  EXPECT_EQ(int8.per_token, uint64_t{2} * 30 * 3 * (64 + 4));
}

TEST(Calc, padding_is_the_unused_slots_of_the_last_block_of_each_sequence) {
  const CalcReport report =
      report_of({.shape = KvShape{2, 2, 16}, .tokens = 33, .sequences = 3, .block_tokens = 16});
  const uint64_t per_token = 2 * 2 * 2 * 16 * 2;
  EXPECT_EQ(report.kv.padding, 3 * (48 - 33) * per_token);
  EXPECT_EQ(report.kv.total, report.kv.payload + report.kv.padding);
}

TEST(Calc, blocks_are_aligned_to_64_bytes) {
  // 16 tokens of 2 bytes: half of a cache line.
  const CalcReport report = report_of(
      {.shape = KvShape{1, 1, 1}, .dtype = CalcDtype::kFp8, .tokens = 16, .block_tokens = 16});
  EXPECT_EQ(report.kv.payload, 32u);
  EXPECT_EQ(report.kv.total, 64u);
}

TEST(Calc, agrees_with_the_layout_of_the_pool) {
  constexpr std::pair<quant::KvDtype, CalcDtype> kDtypes[] = {
      {quant::KvDtype::kF32, CalcDtype::kF32},
      {quant::KvDtype::kBF16, CalcDtype::kBF16},
      {quant::KvDtype::kInt8, CalcDtype::kInt8}};
  for (const auto& [kv_dtype, dtype] : kDtypes) {
    for (const uint32_t block_tokens : {16u, 32u}) {
      const kv::BlockLayout layout({.layers = 5, .kv_heads = 3, .head_dim = 48, .dtype = kv_dtype},
                                   block_tokens);
      const CalcReport report = report_of({.shape = KvShape{5, 3, 48},
                                           .dtype = dtype,
                                           .tokens = 100,
                                           .block_tokens = block_tokens});
      EXPECT_EQ(report.kv.per_token, layout.bytes_per_token());
      EXPECT_EQ(report.kv.payload, 100 * layout.payload_bytes_per_token());
      EXPECT_EQ(report.kv.scales, 100 * layout.scale_bytes_per_token());
      EXPECT_EQ(report.kv.total, layout.blocks_for(100) * layout.block_bytes());
    }
  }
}

TEST(Calc, a_bare_shape_says_nothing_about_weights) {
  const CalcReport report = report_of({.shape = KvShape{2, 2, 16}});
  EXPECT_FALSE(report.weights_bytes.has_value());
  EXPECT_FALSE(report.activations_bytes.has_value());
  EXPECT_FALSE(report.total_bytes.has_value());
}

TEST(Calc, absurd_input_is_refused_by_name) {
  const uint64_t large = uint64_t{1} << 20;
  const std::pair<CalcRequest, const char*> cases[] = {
      {{.shape = KvShape{0, 1, 1}}, "--layers 0"},
      {{.shape = KvShape{1, large + 1, 1}}, "--kv-heads 1048577"},
      {{.shape = KvShape{1, 1, 0}}, "--head-dim 0"},
      {{.preset = "llama-7b", .tokens = 0}, "--tokens 0"},
      {{.preset = "llama-7b", .sequences = ~uint64_t{0}}, "--sequences 18446744073709551615"},
      {{.preset = "llama-7b", .block_tokens = 48}, "--block-tokens 48"},
      {{.preset = "llama-8000b"}, "--preset llama-8000b"},
      {{.shape = KvShape{large, large, large}}, "2^64 bytes"}};
  for (const auto& [request, named] : cases) {
    const auto report = calculate(request);
    ASSERT_FALSE(report.has_value()) << named;
    EXPECT_EQ(report.error().kind, base::ErrorKind::kBadInput);
    EXPECT_NE(report.error().message.find(named), std::string::npos) << report.error().message;
  }
}

}  // namespace
}  // namespace kvasir::api
