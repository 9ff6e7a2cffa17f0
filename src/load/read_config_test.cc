#include "load/read_config.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "load/testing_model.h"

namespace kvasir::load {
namespace {

using gguf::testing::GgufWriter;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::OwnedFile;
using ::testing::StartsWith;

GgufWriter config_only() {
  GgufWriter writer;
  testing::add_config(writer);
  writer.tensor(testing::random_tensor("token_embd.weight", {testing::kEmbedding, testing::kVocab},
                                       quant::TensorType::kQ8_0));
  return writer;
}

model::ModelConfig read_valid(const GgufWriter& writer) {
  const OwnedFile owned(writer.finish());
  EXPECT_TRUE(owned.file.has_value());
  auto config = read_config(*owned.file);
  EXPECT_TRUE(config.has_value()) << config.error().message;
  return *std::move(config);
}

void expect_refused(const GgufWriter& writer, const std::string& key, const std::string& problem) {
  const OwnedFile owned(writer.finish());
  ASSERT_TRUE(owned.file.has_value()) << owned.file.error().message;
  const auto config = read_config(*owned.file);
  ASSERT_FALSE(config.has_value()) << key << ": " << problem;
  EXPECT_EQ(config.error().kind, base::ErrorKind::kBadInput);
  EXPECT_THAT(
      config.error().message,
      AllOf(StartsWith("test.gguf: "), HasSubstr(fmt::format("'{}'", key)), HasSubstr(problem)));
}

TEST(ReadConfig, reads_dimensions_and_fills_defaults) {
  const model::ModelConfig config = read_valid(config_only());
  EXPECT_EQ(config.architecture, "llama");
  EXPECT_EQ(config.name, "test model");
  EXPECT_EQ(config.vocab_size, 40U);
  EXPECT_EQ(config.context_length, 128U);
  EXPECT_EQ(config.layers, 2U);
  EXPECT_EQ(config.embedding_length, 32U);
  EXPECT_EQ(config.feed_forward_length, 64U);
  EXPECT_EQ(config.heads, 2U);
  EXPECT_EQ(config.kv_heads, 1U);
  EXPECT_EQ(config.head_dim, 16U);
  EXPECT_EQ(config.rms_epsilon, 1e-5F);
  EXPECT_EQ(config.attention_scale, 0.25F);
  EXPECT_EQ(config.rope.rotated_dims, 16U);
  EXPECT_EQ(config.rope.base, 10000.0F);
  EXPECT_EQ(config.rope.linear_factor, 1.0F);
  EXPECT_TRUE(config.rope.frequency_factors.empty());
}

TEST(ReadConfig, keys_override_defaults) {
  const model::ModelConfig config =
      read_valid(config_only()
                     .erase("llama.attention.head_count_kv")
                     .set("llama.attention.key_length", uint32_t{64})
                     .set("llama.attention.value_length", uint32_t{64})
                     .set("llama.rope.dimension_count", uint32_t{64})
                     .set("llama.attention.scale", 0.5F)
                     .set("llama.rope.freq_base", 5e5F)
                     .set("llama.rope.scaling.type", "linear")
                     .set("llama.rope.scaling.factor", 4.0F)
                     .set("llama.attention.sliding_window", uint32_t{4096})
                     .set("llama.logit_scale", 1.0F));
  EXPECT_EQ(config.kv_heads, 2U);
  EXPECT_EQ(config.head_dim, 64U);
  EXPECT_EQ(config.attention_scale, 0.5F);
  EXPECT_EQ(config.rope.base, 5e5F);
  EXPECT_EQ(config.rope.linear_factor, 4.0F);
}

TEST(ReadConfig, linear_scaling_has_an_old_key_and_can_be_switched_off) {
  EXPECT_EQ(read_valid(config_only().set("llama.rope.scale_linear", 2.0F)).rope.linear_factor,
            2.0F);
  EXPECT_EQ(read_valid(config_only()
                           .set("llama.rope.scaling.type", "none")
                           .set("llama.rope.scaling.factor", 2.0F))
                .rope.linear_factor,
            1.0F);
}

TEST(ReadConfig, files_that_are_not_a_llama_model) {
  expect_refused(config_only().set("general.architecture", "qwen3"), "general.architecture",
                 "'qwen3' is not supported; supported: llama");
  expect_refused(config_only().erase("general.architecture"), "general.architecture", "missing");
  expect_refused(config_only().set("general.architecture", uint32_t{1}), "general.architecture",
                 "STRING is expected");
  expect_refused(config_only().set("general.type", "adapter"), "general.type", "'adapter'");
  expect_refused(config_only().set("split.count", uint16_t{3}), "split.count", "join them first");
}

TEST(ReadConfig, required_keys) {
  for (const char* key : {"llama.block_count", "llama.context_length", "llama.embedding_length",
                          "llama.feed_forward_length", "llama.attention.head_count",
                          "llama.attention.layer_norm_rms_epsilon"}) {
    expect_refused(config_only().erase(key), key, "missing");
  }
  expect_refused(config_only().erase_tensor("token_embd.weight"), "token_embd.weight", "missing");
}

TEST(ReadConfig, ranges) {
  const auto refuse = [](const char* key, uint64_t value, const char* problem) {
    expect_refused(config_only().set(key, value), key, problem);
  };
  refuse("llama.block_count", 0, "0 is not 1 to 1024");
  refuse("llama.block_count", 1025, "1025 is not 1 to 1024");
  refuse("llama.block_count", ~uint64_t{0}, "is not 1 to 1024");
  refuse("llama.context_length", 0, "is not 1 to 16777216");
  refuse("llama.context_length", (uint64_t{1} << 24) + 1, "is not 1 to 16777216");
  refuse("llama.embedding_length", 0, "is not 1 to");
  refuse("llama.feed_forward_length", uint64_t{1} << 33, "is not 1 to");
  refuse("llama.attention.head_count", 0, "is not 1 to 4096");
  refuse("llama.attention.head_count_kv", 0, "is not 1 to 4096");
  refuse("llama.attention.key_length", 272, "is not 16 to 256");
  expect_refused(config_only().set("llama.block_count", int32_t{-1}), "llama.block_count",
                 "non-negative integer");
  expect_refused(config_only().set("llama.block_count", "two"), "llama.block_count", "STRING");
}

TEST(ReadConfig, numbers_that_must_be_finite_and_positive) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const char* key :
       {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base",
        "llama.rope.scaling.factor", "llama.rope.scale_linear", "llama.attention.scale"}) {
    for (const float bad : {0.0F, -1.0F, kInfinity, std::nanf("")}) {
      expect_refused(config_only().set(key, bad), key, "not finite and positive");
    }
    // Finite as f64, but not as f32.
    expect_refused(config_only().set(key, 1e300), key, "not finite and positive");
    expect_refused(config_only().set(key, 1e-300), key, "not finite and positive");
  }
}

TEST(ReadConfig, rotary_angles_that_have_no_sine_are_refused) {
  for (const auto& [key, value] : {std::pair{"llama.rope.freq_base", 1e-20F},
                                   std::pair{"llama.rope.scaling.factor", 1e-30F}}) {
    const auto bytes = testing::tiny_llama(quant::TensorType::kF32, 1).set(key, value).finish();
    const auto file = gguf::GgufFile::parse(bytes, "test");
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const auto config = read_config(*file);
    ASSERT_FALSE(config.has_value()) << key;
    EXPECT_EQ(config.error().kind, base::ErrorKind::kBadInput);
  }
}

TEST(ReadConfig, values_that_contradict_each_other) {
  expect_refused(config_only().set("llama.attention.head_count", uint32_t{3}),
                 "llama.attention.head_count", "does not divide the embedding length 32");
  expect_refused(config_only()
                     .set("llama.attention.head_count", uint32_t{3})
                     .set("llama.attention.key_length", uint32_t{16})
                     .set("llama.attention.head_count_kv", uint32_t{2}),
                 "llama.attention.head_count_kv", "2 does not divide 3 heads");
  expect_refused(config_only().set("llama.attention.head_count", uint32_t{4}),
                 "llama.attention.key_length", "head dimension 8 is not a multiple of 16");
  expect_refused(config_only().set("llama.attention.key_length", uint32_t{24}),
                 "llama.attention.key_length", "head dimension 24");
  expect_refused(config_only().set("llama.attention.value_length", uint32_t{32}),
                 "llama.attention.value_length", "differs from the key length 16");
  expect_refused(config_only().set("llama.rope.dimension_count", uint32_t{8}),
                 "llama.rope.dimension_count", "differs from the head dimension 16");
}

TEST(ReadConfig, mathematics_that_is_not_implemented) {
  expect_refused(config_only().set("llama.expert_count", uint32_t{8}), "llama.expert_count",
                 "8 is not supported");
  expect_refused(config_only().set("llama.rope.scaling.type", "yarn"), "llama.rope.scaling.type",
                 "'yarn' is not supported");
  expect_refused(config_only().set("llama.rope.scaling.type", "longrope"),
                 "llama.rope.scaling.type", "'longrope' is not supported");
  expect_refused(config_only().set("llama.feed_forward_length", std::vector<uint32_t>{64, 64}),
                 "llama.feed_forward_length", "differ by layer");
  expect_refused(config_only().set("llama.attention.head_count_kv", std::vector<int32_t>{1, 1}),
                 "llama.attention.head_count_kv", "differ by layer");
  expect_refused(config_only().set("llama.attention.causal", false), "llama.attention.causal",
                 "false is not supported");
  for (const char* key : {"llama.logit_scale", "llama.residual_scale", "llama.embedding_scale",
                          "llama.attn_logit_softcapping", "llama.final_logit_softcapping",
                          "llama.attention.clamp_kqv", "llama.rope.scaling.attn_factor"}) {
    expect_refused(config_only().set(key, 0.5F), key, "0.5 is not supported");
  }
}

TEST(ReadConfig, frequency_factors_come_from_their_tensor) {
  const auto with = [](const std::vector<float>& factors, uint64_t length) {
    gguf::testing::ByteWriter bytes;
    for (const float factor : factors) bytes.number(factor);
    return config_only().tensor({"rope_freqs.weight", {length}, 0, bytes.bytes()});
  };
  const std::vector<float> good = {1, 1, 1, 2, 3, 4, 8, 8};
  EXPECT_EQ(read_valid(with(good, 8)).rope.frequency_factors, good);
  expect_refused(with(good, 4), "rope_freqs.weight", "shape is not [8]");
  expect_refused(with({1, 1, 1, 0, 1, 1, 1, 1}, 8), "rope_freqs.weight", "not finite and positive");
  expect_refused(config_only().tensor({"rope_freqs.weight", {8}, 24, std::vector<std::byte>(8)}),
                 "rope_freqs.weight", "not F32, F16 or BF16");
}

}  // namespace
}  // namespace kvasir::load
