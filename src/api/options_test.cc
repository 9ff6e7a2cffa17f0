#include "api/options.h"

#include <gtest/gtest.h>

#include "engine/memory_plan.h"

namespace kvasir::api {
namespace {

constexpr uint32_t kContext = 8192;

model::ModelConfig small_model() {
  return {.vocab_size = 100,
          .context_length = kContext,
          .layers = 30,
          .embedding_length = 576,
          .feed_forward_length = 1536,
          .heads = 9,
          .kv_heads = 3,
          .head_dim = 64,
          .rope = {.rotated_dims = 64}};
}

EnginePlan plan_of(const EngineFlags& flags) {
  const auto options = parse_options(flags);
  EXPECT_TRUE(options.has_value()) << options.error().message;
  const auto plan = plan_engine(*options, small_model());
  EXPECT_TRUE(plan.has_value()) << plan.error().message;
  return *plan;
}

TEST(ParseBytes, reads_decimal_and_binary_units_in_any_case) {
  const std::pair<const char*, uint64_t> cases[] = {{"1", 1},
                                                    {"4096", 4096},
                                                    {"7b", 7},
                                                    {"64KB", 64000},
                                                    {"64KiB", 65536},
                                                    {"64k", 65536},
                                                    {"256MB", 256000000},
                                                    {"256mib", 268435456},
                                                    {"3M", 3145728},
                                                    {"2gb", 2000000000},
                                                    {"2g", 2147483648},
                                                    {"2GiB", 2147483648},
                                                    {"9223372036854775808", uint64_t{1} << 63}};
  for (const auto& [text, bytes] : cases) {
    const auto parsed = parse_bytes(text);
    ASSERT_TRUE(parsed.has_value()) << text;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(ParseBytes, refuses_everything_else_and_repeats_it) {
  for (const char* text :
       {"", "0", "0MiB", "-1", "+1", "1.5GiB", "MiB", "12XB", "12 MB", "12MiBs", "0x10", "nan",
        "9223372036854775809", "99999999999999999999", "9999999999999GiB"}) {
    const auto parsed = parse_bytes(text);
    ASSERT_FALSE(parsed.has_value()) << text;
    EXPECT_EQ(parsed.error().kind, base::ErrorKind::kBadInput);
    EXPECT_EQ(parsed.error().message.find(text), 0u) << parsed.error().message;
  }
}

TEST(ParseOptions, defaults_are_usable) {
  const auto options = parse_options(EngineFlags{});
  ASSERT_TRUE(options.has_value()) << options.error().message;
  EXPECT_EQ(options->kv_mode, kv::CacheMode::kPaged);
  EXPECT_EQ(options->kv_dtype, quant::KvDtype::kBF16);
  EXPECT_EQ(options->block_tokens, 32u);
  EXPECT_EQ(options->prefill_chunk, 128u);
  EXPECT_GE(options->threads, 1u);
  EXPECT_NE(options->kernels, nullptr);
  EXPECT_FALSE(options->kv_memory_bytes.has_value());
}

TEST(ParseOptions, every_flag_arrives) {
  const auto options = parse_options({.model = "m.gguf",
                                      .kv = "contiguous",
                                      .kv_dtype = "f32",
                                      .kv_memory = "3MiB",
                                      .block_tokens = 16,
                                      .prefill_chunk = "all",
                                      .weights = "f32",
                                      .threads = 3,
                                      .isa = "reference",
                                      .attention_order = "tiles",
                                      .max_sequences = 5,
                                      .context = 77});
  ASSERT_TRUE(options.has_value()) << options.error().message;
  EXPECT_EQ(options->model_path, "m.gguf");
  EXPECT_EQ(options->kv_mode, kv::CacheMode::kContiguous);
  EXPECT_EQ(options->kv_dtype, quant::KvDtype::kF32);
  EXPECT_EQ(options->kv_memory_bytes, uint64_t{3} << 20);
  EXPECT_EQ(options->block_tokens, 16u);
  EXPECT_FALSE(options->prefill_chunk.has_value());
  EXPECT_EQ(options->weights, load::WeightsMode::kF32);
  EXPECT_EQ(options->threads, 3u);
  EXPECT_EQ(kernels::isa_name(options->kernels->isa), "reference");
  EXPECT_EQ(options->attention_order, kernels::AttentionOrder::kTiles);
  EXPECT_EQ(options->sequences_max, 5u);
  EXPECT_EQ(options->context, 77u);
}

TEST(ParseOptions, every_kv_dtype_has_a_name) {
  for (const quant::KvDtype dtype :
       {quant::KvDtype::kF32, quant::KvDtype::kBF16, quant::KvDtype::kInt8}) {
    const auto options = parse_options({.kv_dtype = std::string(quant::kv_dtype_name(dtype))});
    ASSERT_TRUE(options.has_value());
    EXPECT_EQ(options->kv_dtype, dtype);
  }
}

TEST(ParseOptions, a_bad_flag_is_refused_by_name) {
  const std::pair<EngineFlags, const char*> cases[] = {
      {{.kv = "paged2"}, "--kv paged2"},
      {{.kv_dtype = "f16"}, "--kv-dtype f16"},
      {{.kv_dtype = "int3"}, "--kv-dtype int3"},
      {{.kv_memory = "lots"}, "--kv-memory lots"},
      {{.block_tokens = 0}, "--block-tokens 0"},
      {{.block_tokens = 64}, "--block-tokens 64"},
      {{.prefill_chunk = "0"}, "--prefill-chunk 0"},
      {{.prefill_chunk = "-1"}, "--prefill-chunk -1"},
      {{.prefill_chunk = "some"}, "--prefill-chunk some"},
      {{.weights = "q4"}, "--weights q4"},
      {{.threads = -1}, "--threads -1"},
      {{.threads = 513}, "--threads 513"},
      {{.isa = "mmx"}, "--isa mmx"},
      {{.attention_order = "tile"}, "--attention-order tile"},
      {{.max_sequences = 0}, "--max-sequences 0"},
      {{.max_sequences = 65537}, "--max-sequences 65537"}};
  for (const auto& [flags, named] : cases) {
    const auto options = parse_options(flags);
    ASSERT_FALSE(options.has_value()) << named;
    EXPECT_EQ(options.error().kind, base::ErrorKind::kBadInput) << named;
    EXPECT_EQ(options.error().message.find(named), 0u) << options.error().message;
    EXPECT_EQ(options.error().message.find('\n'), std::string::npos);
  }
}

TEST(PlanEngine, the_default_cache_holds_one_full_context) {
  const EnginePlan plan = plan_of({});
  const kv::BlockLayout layout(plan.cache.groups[0], 32);
  EXPECT_EQ(plan.cache.budget_bytes, layout.blocks_for(kContext) * layout.block_bytes());
  EXPECT_EQ(plan.cache.sequence_tokens_max, kContext);
  EXPECT_EQ(plan.limits.prefill_chunk, 128u);
}

TEST(PlanEngine, the_default_cache_is_at_most_one_gibibyte) {
  const auto options = parse_options({});
  ASSERT_TRUE(options.has_value());
  model::ModelConfig config = small_model();
  config.context_length = 1 << 20;
  const auto plan = plan_engine(*options, config);
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->cache.budget_bytes, uint64_t{1} << 30);
}

TEST(PlanEngine, a_chunk_is_never_longer_than_the_context) {
  EXPECT_EQ(plan_of({.prefill_chunk = "all"}).limits.prefill_chunk, kContext);
  EXPECT_EQ(plan_of({.prefill_chunk = "100000"}).limits.prefill_chunk, kContext);
  EXPECT_EQ(plan_of({.prefill_chunk = "all", .context = 40}).limits.prefill_chunk, 40u);
}

TEST(PlanEngine, a_context_beyond_the_models_is_refused) {
  const auto options = parse_options({.context = kContext + 1});
  ASSERT_TRUE(options.has_value());
  const auto plan = plan_engine(*options, small_model());
  ASSERT_FALSE(plan.has_value());
  EXPECT_EQ(plan.error().message.find("--context 8193"), 0u) << plan.error().message;
}

}  // namespace
}  // namespace kvasir::api
