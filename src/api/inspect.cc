#include "api/inspect.h"

#include <fmt/format.h>

#include <utility>

#include "load/read_vocab.h"

namespace kvasir::api {
namespace {

TensorSummary summary_of(const gguf::TensorInfo& tensor) {
  TensorSummary summary{.name = tensor.name, .shape = tensor.dimensions};
  summary.type = quant::tensor_type_name(tensor.type_id).value_or("unknown");
  if (!tensor.bytes.empty()) summary.size_bytes = tensor.bytes.size();
  return summary;
}

base::Result<TokenizerSummary> summary_of_vocab(const gguf::GgufFile& file) {
  ASSIGN_OR_RETURN(text::Vocab vocab, load::read_vocab(file));
  ASSIGN_OR_RETURN(const auto model, file.get_string("tokenizer.ggml.model"));
  return TokenizerSummary{.model = std::string(model.value_or("")),
                          .pre_tokenizer = std::move(vocab.pre_tokenizer),
                          .tokens = vocab.tokens.size(),
                          .bos = vocab.bos,
                          .eos = vocab.eos,
                          .end_of_generation = std::move(vocab.end_of_generation),
                          .chat_template = file.has("tokenizer.chat_template")};
}

}  // namespace

base::Result<FileSummary> inspect(const std::string& path) {
  ASSIGN_OR_RETURN(const gguf::GgufFile file, gguf::GgufFile::open(path));
  FileSummary summary;
  ASSIGN_OR_RETURN(const auto architecture, file.get_string("general.architecture"));
  ASSIGN_OR_RETURN(const auto name, file.get_string("general.name"));
  summary.architecture = architecture.value_or("");
  summary.name = name.value_or("");
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    summary.tensors.push_back(summary_of(tensor));
    summary.parameters += tensor.elements();
  }
  auto tokenizer = summary_of_vocab(file);
  auto config = load::read_config(file);
  if (tokenizer) {
    summary.tokenizer = *std::move(tokenizer);
  } else {
    summary.problem = tokenizer.error().message;
  }
  if (config) {
    summary.config = *std::move(config);
  } else {
    summary.problem = config.error().message;
  }
  return summary;
}

}  // namespace kvasir::api
