// A complete llama model of a few kilobytes, as a writer that a test may still change.
// For tests and corpus generators only.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/testing_writer.h"
#include "quant/types.h"

namespace kvasir::load::testing {

constexpr uint64_t kEmbedding = 32;
constexpr uint64_t kFeedForward = 64;
constexpr uint64_t kHeadDim = 16;
constexpr uint64_t kHeads = 2;
constexpr uint64_t kKvHeads = 1;
constexpr uint64_t kLayers = 2;
constexpr uint64_t kVocab = 40;  // more than one panel, the last one not full

// Random blocks whose values are finite: every 16-bit word is a small, normal f16 and bf16.
inline std::vector<std::byte> random_blocks(size_t size_bytes, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size_bytes);
  for (size_t i = 0; i < size_bytes; ++i) {
    bytes[i] = i % 2 == 0 ? std::byte(random() & 0xffU) : std::byte(0x20U | (random() & 0x9fU));
  }
  return bytes;
}

inline gguf::testing::GgufWriter::Tensor random_tensor(const std::string& name,
                                                       std::vector<uint64_t> dimensions,
                                                       quant::TensorType type) {
  uint64_t rows = 1;
  for (size_t i = 1; i < dimensions.size(); ++i) rows *= dimensions[i];
  uint32_t seed = 1;
  for (const char c : name) seed = seed * 31 + static_cast<uint32_t>(c);
  const uint64_t size_bytes = rows * quant::row_size_bytes(type, dimensions[0]);
  return {name, std::move(dimensions), static_cast<uint32_t>(type),
          random_blocks(size_bytes, seed)};
}

inline void add_vocab(gguf::testing::GgufWriter& writer, size_t tokens) {
  std::vector<std::string> texts = {"<unk>", "<s>", "</s>", "a", "b", "ab"};
  std::vector<int32_t> types = {2, 3, 3, 1, 1, 1};
  while (texts.size() < tokens) {
    texts.push_back(fmt::format("t{}", texts.size()));
    types.push_back(1);
  }
  writer.set("tokenizer.ggml.model", "gpt2")
      .set("tokenizer.ggml.pre", "smollm")
      .set("tokenizer.ggml.tokens", texts)
      .set("tokenizer.ggml.token_type", types)
      .set("tokenizer.ggml.merges", std::vector<std::string>{"a b"})
      .set("tokenizer.ggml.bos_token_id", uint32_t{1})
      .set("tokenizer.ggml.eos_token_id", uint32_t{2})
      .set("tokenizer.chat_template", "{{ messages }}");
}

inline void add_config(gguf::testing::GgufWriter& writer) {
  writer.set("general.architecture", "llama")
      .set("general.name", "test model")
      .set("llama.block_count", uint32_t{kLayers})
      .set("llama.context_length", uint32_t{128})
      .set("llama.embedding_length", uint32_t{kEmbedding})
      .set("llama.feed_forward_length", uint32_t{kFeedForward})
      .set("llama.attention.head_count", uint32_t{kHeads})
      .set("llama.attention.head_count_kv", uint32_t{kKvHeads})
      .set("llama.attention.layer_norm_rms_epsilon", 1e-5F);
}

// Tied output, separate query, key and value, no biases; matrices of `type`.
inline gguf::testing::GgufWriter tiny_llama(quant::TensorType type, uint32_t layers = kLayers) {
  constexpr auto kF32 = quant::TensorType::kF32;
  gguf::testing::GgufWriter writer;
  add_config(writer);
  writer.set("llama.block_count", layers);
  add_vocab(writer, kVocab);
  const auto add = [&](const std::string& name, std::vector<uint64_t> dimensions) {
    const auto tensor_type = dimensions.size() == 1 ? kF32 : type;
    writer.tensor(random_tensor(name, std::move(dimensions), tensor_type));
  };
  add("token_embd.weight", {kEmbedding, kVocab});
  for (uint32_t layer = 0; layer < layers; ++layer) {
    const std::string prefix = fmt::format("blk.{}.", layer);
    add(prefix + "attn_norm.weight", {kEmbedding});
    add(prefix + "attn_q.weight", {kEmbedding, kHeads * kHeadDim});
    add(prefix + "attn_k.weight", {kEmbedding, kKvHeads * kHeadDim});
    add(prefix + "attn_v.weight", {kEmbedding, kKvHeads * kHeadDim});
    add(prefix + "attn_output.weight", {kHeads * kHeadDim, kEmbedding});
    add(prefix + "ffn_norm.weight", {kEmbedding});
    add(prefix + "ffn_gate.weight", {kEmbedding, kFeedForward});
    add(prefix + "ffn_up.weight", {kEmbedding, kFeedForward});
    add(prefix + "ffn_down.weight", {kFeedForward, kEmbedding});
  }
  add("output_norm.weight", {kEmbedding});
  return writer;
}

// A parsed file that keeps its bytes.
struct OwnedFile {
  explicit OwnedFile(std::vector<std::byte> content)
      : bytes(std::move(content)), file(gguf::GgufFile::parse(bytes, "test.gguf")) {}
  std::vector<std::byte> bytes;
  base::Result<gguf::GgufFile> file;
};

}  // namespace kvasir::load::testing
