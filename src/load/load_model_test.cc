#include "load/load_model.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/fp_env.h"
#include "load/read_config.h"
#include "load/testing_model.h"
#include "quant/decode.h"

namespace kvasir::load {
namespace {

using gguf::testing::GgufWriter;
using quant::TensorType;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::OwnedFile;
using testing::random_tensor;
using ::testing::StartsWith;
using testing::tiny_llama;

constexpr uint64_t kEmbedding = testing::kEmbedding;
constexpr uint64_t kQueryRows = testing::kHeads * testing::kHeadDim;
constexpr uint64_t kKvRows = testing::kKvHeads * testing::kHeadDim;

constexpr TensorType kTypes[] = {TensorType::kF32,  TensorType::kF16,  TensorType::kBF16,
                                 TensorType::kQ4_0, TensorType::kQ4_1, TensorType::kQ5_0,
                                 TensorType::kQ5_1, TensorType::kQ8_0};

LoadedModel load_valid(const gguf::GgufFile& file, const LoadOptions& options) {
  auto loaded = load_model(file, options);
  EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
  return *std::move(loaded);
}

// Row `row` of a tensor, as its stored bytes define it.
std::vector<float> stored_row(const gguf::GgufFile& file, const std::string& name, uint64_t row) {
  const gguf::TensorInfo* tensor = file.find_tensor(name);
  const auto type = static_cast<TensorType>(tensor->type_id);
  const uint64_t row_bytes = quant::row_size_bytes(type, tensor->dimensions[0]);
  std::vector<float> values(tensor->dimensions[0]);
  const base::ScopedFpEnv fp_env;
  quant::decode_row(type, tensor->bytes.subspan(row * row_bytes, row_bytes), values);
  return values;
}

std::vector<float> packed_row(const quant::PackedMatrix& matrix, uint64_t row) {
  std::vector<float> values(matrix.columns);
  const base::ScopedFpEnv fp_env;
  quant::unpack_row(matrix, row, values);
  return values;
}

void expect_matrix(const quant::PackedMatrix& matrix, const gguf::GgufFile& file,
                   const std::string& name, uint64_t first_row = 0) {
  SCOPED_TRACE(name);
  for (const uint64_t row : {uint64_t{0}, uint64_t{matrix.rows} / 2, uint64_t{matrix.rows} - 1}) {
    ASSERT_EQ(packed_row(matrix, row), stored_row(file, name, first_row + row)) << row;
  }
}

void expect_layers(const LoadedModel& model, const gguf::GgufFile& file) {
  for (size_t i = 0; i < model.weights.layers.size(); ++i) {
    const model::LayerWeights& layer = model.weights.layers[i];
    const std::string prefix = fmt::format("blk.{}.", i);
    expect_matrix(layer.query.weight, file, prefix + "attn_q.weight");
    expect_matrix(layer.key.weight, file, prefix + "attn_k.weight");
    expect_matrix(layer.value.weight, file, prefix + "attn_v.weight");
    expect_matrix(layer.attention_output.weight, file, prefix + "attn_output.weight");
    expect_matrix(layer.gate.weight, file, prefix + "ffn_gate.weight");
    expect_matrix(layer.up.weight, file, prefix + "ffn_up.weight");
    expect_matrix(layer.down.weight, file, prefix + "ffn_down.weight");
    const auto norm = stored_row(file, prefix + "attn_norm.weight", 0);
    EXPECT_TRUE(std::ranges::equal(layer.attention_norm, norm));
    const auto ffn_norm = stored_row(file, prefix + "ffn_norm.weight", 0);
    EXPECT_TRUE(std::ranges::equal(layer.feed_forward_norm, ffn_norm));
    EXPECT_TRUE(layer.query.bias.empty());
  }
}

TEST(LoadModel, every_type_arrives_in_its_native_format) {
  for (const TensorType type : kTypes) {
    SCOPED_TRACE(quant::tensor_type_info(type).name);
    const OwnedFile owned(tiny_llama(type).finish());
    ASSERT_TRUE(owned.file.has_value()) << owned.file.error().message;
    const LoadedModel model = load_valid(*owned.file, {});
    EXPECT_EQ(model.weights.token_embedding.format, quant::native_format(type));
    expect_matrix(model.weights.token_embedding, *owned.file, "token_embd.weight");
    expect_layers(model, *owned.file);
    const auto text = load_text(*owned.file, model.config);
    ASSERT_TRUE(text.has_value()) << text.error().message;
    EXPECT_EQ(text->vocab.tokens.size(), testing::kVocab);
    EXPECT_EQ(text->chat_template, "{{ messages }}");
  }
}

TEST(LoadModel, f32_mode_holds_the_stored_values_exactly) {
  for (const TensorType type : kTypes) {
    SCOPED_TRACE(quant::tensor_type_info(type).name);
    const OwnedFile owned(tiny_llama(type).finish());
    const LoadedModel model = load_valid(*owned.file, {.weights = WeightsMode::kF32});
    EXPECT_EQ(model.weights.token_embedding.format, quant::PackedFormat::kF32);
    for (uint64_t row = 0; row < testing::kVocab; ++row) {
      EXPECT_EQ(packed_row(model.weights.token_embedding, row),
                stored_row(*owned.file, "token_embd.weight", row));
    }
  }
}

TEST(LoadModel, threads_do_not_change_a_byte) {
  const OwnedFile owned(tiny_llama(TensorType::kQ4_1).finish());
  base::ThreadPool pool(3);
  const LoadedModel alone = load_valid(*owned.file, {});
  const LoadedModel together = load_valid(*owned.file, {.pool = &pool});
  const auto size_bytes = alone.weights.arena.size_bytes();
  ASSERT_EQ(together.weights.arena.size_bytes(), size_bytes);
  EXPECT_TRUE(std::ranges::equal(alone.weights.arena.as<std::byte>(0, size_bytes),
                                 together.weights.arena.as<std::byte>(0, size_bytes)));
}

TEST(LoadModel, the_arena_has_exactly_the_announced_size) {
  for (const TensorType type : kTypes) {
    for (const WeightsMode mode : {WeightsMode::kNative, WeightsMode::kF32}) {
      const OwnedFile owned(tiny_llama(type).finish());
      const auto config = read_config(*owned.file);
      ASSERT_TRUE(config.has_value());
      const auto announced = weights_size_bytes(*owned.file, *config, mode);
      ASSERT_TRUE(announced.has_value());
      EXPECT_EQ(load_valid(*owned.file, {.weights = mode}).weights.arena.size_bytes(), *announced);
    }
  }
}

TEST(LoadModel, a_tied_output_is_the_embedding_and_counts_once) {
  const OwnedFile tied(tiny_llama(TensorType::kQ8_0).finish());
  const LoadedModel model = load_valid(*tied.file, {});
  EXPECT_EQ(model.weights.output.weight.data, model.weights.token_embedding.data);
  const OwnedFile untied(
      tiny_llama(TensorType::kQ8_0)
          .tensor(random_tensor("output.weight", {kEmbedding, testing::kVocab}, TensorType::kF16))
          .finish());
  const LoadedModel larger = load_valid(*untied.file, {});
  EXPECT_EQ(larger.weights.output.weight.format, quant::PackedFormat::kF16);
  expect_matrix(larger.weights.output.weight, *untied.file, "output.weight");
  EXPECT_EQ(larger.parameters, model.parameters + kEmbedding * testing::kVocab);
}

TEST(LoadModel, fused_attention_inputs_are_split_by_rows) {
  GgufWriter writer = tiny_llama(TensorType::kQ4_0);
  for (const std::string prefix : {"blk.0.", "blk.1."}) {
    for (const char* part : {"attn_q.weight", "attn_k.weight", "attn_v.weight"}) {
      writer.erase_tensor(prefix + part);
    }
    const uint64_t rows = kQueryRows + 2 * kKvRows;
    writer.tensor(random_tensor(prefix + "attn_qkv.weight", {kEmbedding, rows}, TensorType::kQ4_0));
    writer.tensor(random_tensor(prefix + "attn_qkv.bias", {rows}, TensorType::kF32));
  }
  const OwnedFile owned(writer.finish());
  const LoadedModel model = load_valid(*owned.file, {});
  const model::LayerWeights& layer = model.weights.layers[1];
  expect_matrix(layer.query.weight, *owned.file, "blk.1.attn_qkv.weight");
  expect_matrix(layer.key.weight, *owned.file, "blk.1.attn_qkv.weight", kQueryRows);
  expect_matrix(layer.value.weight, *owned.file, "blk.1.attn_qkv.weight", kQueryRows + kKvRows);
  const auto bias = stored_row(*owned.file, "blk.1.attn_qkv.bias", 0);
  ASSERT_EQ(layer.value.bias.size(), kKvRows);
  EXPECT_EQ(layer.query.bias[0], bias[0]);
  EXPECT_EQ(layer.key.bias[1], bias[kQueryRows + 1]);
  EXPECT_EQ(layer.value.bias[kKvRows - 1], bias.back());
}

TEST(LoadModel, biases_and_half_precision_vectors_are_decoded) {
  const OwnedFile owned(
      tiny_llama(TensorType::kQ8_0)
          .tensor(random_tensor("blk.0.attn_output.bias", {kEmbedding}, TensorType::kF32))
          .tensor(random_tensor("blk.1.ffn_gate.bias", {testing::kFeedForward}, TensorType::kF16))
          .tensor(random_tensor("output_norm.weight", {kEmbedding}, TensorType::kBF16))
          .tensor(random_tensor("output.bias", {testing::kVocab}, TensorType::kF32))
          .finish());
  const LoadedModel model = load_valid(*owned.file, {});
  const auto expect_vector = [&](std::span<const float> vector, const std::string& name) {
    EXPECT_TRUE(std::ranges::equal(vector, stored_row(*owned.file, name, 0))) << name;
  };
  expect_vector(model.weights.layers[0].attention_output.bias, "blk.0.attn_output.bias");
  expect_vector(model.weights.layers[1].gate.bias, "blk.1.ffn_gate.bias");
  expect_vector(model.weights.output_norm, "output_norm.weight");
  expect_vector(model.weights.output.bias, "output.bias");
}

TEST(LoadModel, progress_rises_to_one) {
  const OwnedFile owned(tiny_llama(TensorType::kQ8_0).finish());
  std::vector<double> seen;
  load_valid(*owned.file, {.progress = [&](double fraction) { seen.push_back(fraction); }});
  ASSERT_GT(seen.size(), 10U);
  EXPECT_TRUE(std::ranges::is_sorted(seen));
  EXPECT_EQ(seen.back(), 1.0);
}

void expect_refused(const GgufWriter& writer, const std::string& subject,
                    const std::string& problem) {
  const OwnedFile owned(writer.finish());
  ASSERT_TRUE(owned.file.has_value()) << owned.file.error().message;
  const auto model = load_model(*owned.file, {});
  ASSERT_FALSE(model.has_value()) << subject << ": " << problem;
  EXPECT_EQ(model.error().kind, base::ErrorKind::kBadInput);
  EXPECT_THAT(model.error().message,
              AllOf(StartsWith("test.gguf: " + subject), HasSubstr(problem)));
}

TEST(LoadModel, a_missing_tensor_is_named_with_its_shape) {
  const GgufWriter whole = tiny_llama(TensorType::kQ8_0);
  for (const char* name : {"output_norm.weight", "blk.1.attn_q.weight", "blk.0.ffn_norm.weight"}) {
    GgufWriter writer = whole;
    expect_refused(writer.erase_tensor(name), fmt::format("tensor '{}'", name),
                   "missing, expected with shape [32");
  }
}

TEST(LoadModel, another_shape_or_type_is_refused) {
  const auto with = [](const std::string& name, std::vector<uint64_t> shape, TensorType type) {
    return tiny_llama(TensorType::kF32).tensor(random_tensor(name, std::move(shape), type));
  };
  constexpr auto kF32 = TensorType::kF32;
  expect_refused(with("blk.0.ffn_up.weight", {64, 32}, kF32), "tensor 'blk.0.ffn_up.weight'",
                 "expected shape [32, 64], found [64, 32]");
  expect_refused(with("blk.0.ffn_up.weight", {32, 64, 1}, kF32), "tensor 'blk.0.ffn_up.weight'",
                 "expected shape [32, 64], found [32, 64, 1]");
  expect_refused(with("blk.0.attn_norm.weight", {32}, TensorType::kQ8_0),
                 "tensor 'blk.0.attn_norm.weight'", "expected F32, F16 or BF16, found Q8_0");
  expect_refused(
      tiny_llama(kF32).tensor({"blk.0.ffn_up.weight", {32, 64}, 20, std::vector<std::byte>(2048)}),
      "tensor 'blk.0.ffn_up.weight'", "type IQ4_NL can not be decoded");
}

TEST(LoadModel, tensors_of_other_mathematics_are_refused_and_unknown_ones_ignored) {
  const auto with = [](const std::string& name) {
    return tiny_llama(TensorType::kQ8_0).tensor(random_tensor(name, {16}, TensorType::kF32));
  };
  for (const char* name :
       {"blk.0.attn_q_norm.weight", "blk.1.attn_k_norm.weight", "blk.0.ffn_gate_inp.weight",
        "blk.0.ffn_gate_exps.weight", "blk.0.ffn_up.0.weight", "blk.0.post_attention_norm.weight",
        "blk.0.post_ffw_norm.weight", "blk.0.attn_sinks.weight", "blk.0.attn_norm.bias",
        "blk.0.attn_q.scale", "rope_factors_long.weight", "output_norm.bias"}) {
    expect_refused(with(name), fmt::format("tensor '{}'", name), "not part of a llama model");
  }
  expect_refused(with("blk.2.attn_q.weight"), "tensor 'blk.2.attn_q.weight'", "only 2 layers");
  for (const char* name : {"cls.output.weight", "blk.x", "blk.0.attn_rot_embd"}) {
    const OwnedFile owned(with(name).finish());
    EXPECT_TRUE(load_model(*owned.file, {}).has_value()) << name;
  }
}

TEST(LoadModel, vocabulary_and_embedding_must_have_the_same_size) {
  GgufWriter writer = tiny_llama(TensorType::kQ8_0);
  testing::add_vocab(writer, testing::kVocab + 1);
  const OwnedFile owned(writer.finish());
  ASSERT_TRUE(owned.file.has_value()) << owned.file.error().message;
  const auto text = load_text(*owned.file, load_valid(*owned.file, {}).config);
  ASSERT_FALSE(text.has_value());
  EXPECT_THAT(text.error().message,
              AllOf(StartsWith("test.gguf: key 'tokenizer.ggml.tokens'"),
                    HasSubstr("41 tokens, but tensor 'token_embd.weight' 40 rows")));
}

struct TinyFile {
  const char* name;
  uint32_t kv_heads;
  uint32_t feed_forward;
  bool tied;
  bool frequency_factors;
};

TEST(LoadModel, golden_models_load_with_their_configuration) {
  for (const TinyFile& tiny :
       {TinyFile{"llama", 2, 128, true, false}, TinyFile{"llama31", 2, 128, true, true},
        TinyFile{"llama-mha-untied", 4, 96, false, false},
        TinyFile{"llama-bf16", 2, 128, true, false}, TinyFile{"llama-f16", 2, 128, true, false},
        TinyFile{"llama-q4_0", 2, 128, true, false}, TinyFile{"llama-q4_1", 2, 128, true, false},
        TinyFile{"llama-q5_0", 2, 128, true, false}, TinyFile{"llama-q5_1", 2, 128, true, false},
        TinyFile{"llama-q8_0", 2, 128, true, false}}) {
    SCOPED_TRACE(tiny.name);
    const auto file = gguf::GgufFile::open(
        fmt::format("{}/tests/golden/tiny/{}.gguf", KVASIR_SOURCE_DIR, tiny.name));
    ASSERT_TRUE(file.has_value()) << file.error().message;
    const LoadedModel model = load_valid(*file, {});
    EXPECT_EQ(model.config.layers, 3U);
    EXPECT_EQ(model.config.embedding_length, 64U);
    EXPECT_EQ(model.config.head_dim, 16U);
    EXPECT_EQ(model.config.kv_heads, tiny.kv_heads);
    EXPECT_EQ(model.config.feed_forward_length, tiny.feed_forward);
    EXPECT_EQ(model.config.vocab_size, 288U);
    EXPECT_EQ(model.config.rope.frequency_factors.size(), tiny.frequency_factors ? 8U : 0U);
    EXPECT_EQ(model.weights.output.weight.data == model.weights.token_embedding.data, tiny.tied);
    const auto text = load_text(*file, model.config);
    ASSERT_TRUE(text.has_value()) << text.error().message;
    EXPECT_EQ(text->vocab.merges.size(), 29U);
    expect_matrix(model.weights.token_embedding, *file, "token_embd.weight");
    expect_layers(model, *file);
  }
}

TEST(LoadModel, fingerprints_tell_models_and_precisions_apart_and_not_thread_counts) {
  std::set<base::Sha256Bytes> seen;
  for (const char* name : {"llama", "llama31", "llama-q4_0", "llama-q4_1", "llama-mha-untied"}) {
    const auto file =
        gguf::GgufFile::open(fmt::format("{}/tests/golden/tiny/{}.gguf", KVASIR_SOURCE_DIR, name));
    ASSERT_TRUE(file.has_value()) << file.error().message;
    base::ThreadPool pool(3);
    const auto alone = load_valid(*file, {}).fingerprint;
    EXPECT_EQ(load_valid(*file, {.pool = &pool}).fingerprint, alone) << name;
    seen.insert(alone);
    if (std::string_view(name) == "llama-q4_0") {
      seen.insert(load_valid(*file, {.weights = WeightsMode::kF32}).fingerprint);
    }
  }
  EXPECT_EQ(seen.size(), 6U);
}

}  // namespace
}  // namespace kvasir::load
