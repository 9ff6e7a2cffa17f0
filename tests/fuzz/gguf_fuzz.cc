// Any bytes given as a model file end in a checked model or in an error of one line.
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/check.h"
#include "gguf/gguf_file.h"
#include "load/read_config.h"
#include "load/read_vocab.h"
#include "load/weights_plan.h"

namespace kvasir {
namespace {

void check_message(const base::Error& error) {
  CHECK(error.kind == base::ErrorKind::kBadInput);
  CHECK(error.message.starts_with("fuzz"));
  CHECK(error.message.find('\n') == std::string::npos);
}

void check_tensors(const gguf::GgufFile& file, std::span<const std::byte> bytes) {
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    CHECK(file.find_tensor(tensor.name) == &tensor);
    if (tensor.bytes.empty()) continue;
    CHECK(tensor.bytes.data() >= bytes.data());
    CHECK(tensor.bytes.data() + tensor.bytes.size() <= bytes.data() + bytes.size());
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  const auto file = gguf::GgufFile::parse(bytes, "fuzz");
  if (!file) {
    check_message(file.error());
    return 0;
  }
  check_tensors(*file, bytes);
  if (const auto vocab = load::read_vocab(*file); !vocab) check_message(vocab.error());
  const auto config = load::read_config(*file);
  if (!config) {
    check_message(config.error());
    return 0;
  }
  for (const auto mode : {load::WeightsMode::kNative, load::WeightsMode::kF32}) {
    if (const auto plan = load::plan_weights(*file, *config, mode); !plan) {
      check_message(plan.error());
    }
  }
  return 0;
}

}  // namespace kvasir
