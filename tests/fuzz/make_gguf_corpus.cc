// Writes the seed files of corpus/gguf: make_gguf_corpus DIRECTORY.
#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "load/testing_model.h"

namespace kvasir {
namespace {
using gguf::testing::GgufWriter;
using load::testing::tiny_llama;

bool write_file(const std::string& path, const GgufWriter& writer) {
  const auto bytes = writer.finish();
  std::ofstream file(path, std::ios::binary);
  file.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  return file.good();
}

GgufWriter every_value_type() {
  return GgufWriter()
      .set("general.architecture", "llama")
      .set("general.alignment", uint32_t{64})
      .set("u8", uint8_t{1})
      .set("i8", int8_t{-1})
      .set("u16", uint16_t{2})
      .set("i16", int16_t{-2})
      .set("i32", int32_t{-3})
      .set("u64", uint64_t{4})
      .set("i64", int64_t{-4})
      .set("f32", 0.5F)
      .set("f64", 0.25)
      .set("flag", true)
      .set("numbers", std::vector<int16_t>{1, 2, 3})
      .set("texts", std::vector<std::string>{"a", "", "c"});
}

GgufWriter sentence_piece() {
  GgufWriter writer = tiny_llama(quant::TensorType::kQ4_0, 1);
  writer.set("tokenizer.ggml.model", "llama")
      .set("tokenizer.ggml.scores", std::vector<float>(load::testing::kVocab, -1.0F))
      .set("tokenizer.ggml.add_space_prefix", true)
      .set("llama.rope.scaling.type", "linear")
      .set("llama.rope.scaling.factor", 2.0F)
      .tensor(load::testing::random_tensor("rope_freqs.weight", {load::testing::kHeadDim / 2},
                                           quant::TensorType::kF32))
      .erase("tokenizer.ggml.merges");
  return writer;
}

// Exit code.
int write_corpus(int argc, char** argv) {
  if (argc != 2) {
    std::fputs("usage: make_gguf_corpus DIRECTORY\n", stderr);
    return 2;
  }
  const std::string directory = argv[1];
  const bool written =
      write_file(directory + "/empty.gguf", GgufWriter()) &&
      write_file(directory + "/values.gguf", every_value_type()) &&
      write_file(directory + "/llama-q4_0-spm.gguf", sentence_piece()) &&
      write_file(directory + "/llama-q4_1.gguf", tiny_llama(quant::TensorType::kQ4_1, 1));
  if (!written) std::fputs(fmt::format("can not write to {}\n", directory).c_str(), stderr);
  return written ? 0 : 1;
}

}  // namespace
}  // namespace kvasir

int main(int argc, char** argv) {
  return kvasir::write_corpus(argc, argv);
}
