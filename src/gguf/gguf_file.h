// A GGUF container, opened and checked: after open() every key, tensor extent and type in it can
// be used without another check. Versions 2 and 3, little endian.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
//
// Thread: immutable after open(). Allocates: open() only, in proportion to the metadata, and never
// before the file has been shown to hold what it claims.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/mapped_file.h"
#include "base/result.h"
#include "quant/types.h"

namespace kvasir::gguf {

// A tensor's place and shape. The first dimension is the contiguous one.
struct TensorInfo {
  std::string name;
  std::vector<uint64_t> dimensions;  // 1 to 4, each >= 1
  uint32_t type_id = 0;              // a known type, though perhaps not one that can be decoded
  std::span<const std::byte> bytes;  // the tensor's data; points into the mapped file.
                                     // Empty when the type can not be decoded here.
  uint64_t elements() const;
};

class GgufFile {
 public:
  // Maps and checks `path`. Error: one line that names the file, the field and its offset.
  static base::Result<GgufFile> open(const std::string& path);
  // The same for bytes in memory (tests, fuzzing); `name` stands for the path in messages.
  static base::Result<GgufFile> parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& name() const;
  uint32_t version() const;
  const std::vector<TensorInfo>& tensors() const;
  const TensorInfo* find_tensor(std::string_view name) const;  // nullptr: absent

  // Metadata, with the type checked. nullopt inside the Result: absent. Error: another type or
  // out of range, naming the key. Integers of every width and sign are accepted where they fit.
  bool has(std::string_view key) const;
  base::Result<std::optional<uint64_t>> get_unsigned(std::string_view key) const;
  base::Result<std::optional<double>> get_float(std::string_view key) const;
  base::Result<std::optional<bool>> get_bool(std::string_view key) const;
  base::Result<std::optional<std::string_view>> get_string(std::string_view key) const;
  base::Result<std::optional<std::vector<std::string_view>>> get_strings(std::string_view key) const;
  base::Result<std::optional<std::vector<float>>> get_floats(std::string_view key) const;
  base::Result<std::optional<std::vector<int64_t>>> get_integers(std::string_view key) const;
};

}  // namespace kvasir::gguf
