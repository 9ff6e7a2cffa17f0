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
#include "gguf/metadata.h"
#include "quant/types.h"

namespace kvasir::gguf {

// A tensor's place and shape. The first dimension is the contiguous one.
struct TensorInfo {
  std::string name;
  std::vector<uint64_t> dimensions;  // 1 to 4, each >= 1
  uint32_t type_id = 0;              // a known type, though perhaps not one that can be decoded
  std::span<const std::byte> bytes;  // the tensor's data; points into the mapped file.
                                     // Empty when the type can not be decoded here.

  uint64_t elements() const;  // the product of the dimensions, which is known to fit
};

class GgufFile {
 public:
  // Maps and checks `path`. Error: one line that names the file, the field and its offset.
  static base::Result<GgufFile> open(const std::string& path);
  // The same for bytes in memory (tests, fuzzing), which must outlive the result; `name` stands
  // for the path in messages.
  static base::Result<GgufFile> parse(std::span<const std::byte> bytes, const std::string& name);

  const std::string& name() const;

  // Gives the memory of a tensor's bytes back, where they come from a file: they can still be read.
  void forget(std::span<const std::byte> tensor) const { mapped_.forget(tensor); }
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
  base::Result<std::optional<std::vector<std::string_view>>> get_strings(
      std::string_view key) const;
  base::Result<std::optional<std::vector<float>>> get_floats(std::string_view key) const;
  base::Result<std::optional<std::vector<int64_t>>> get_integers(std::string_view key) const;

 private:
  static base::Result<GgufFile> parse_into(GgufFile file, std::span<const std::byte> bytes);

  const MetadataEntry* find_entry(std::string_view key) const;
  // The entry, if it is present and has the wanted shape.
  base::Result<const MetadataEntry*> find_shaped(std::string_view key, bool is_array,
                                                 std::string_view wanted) const;
  std::unexpected<base::Error> mismatch(const MetadataEntry& entry, std::string_view wanted) const;
  // All elements of an array of numbers; `load` gives nullopt for one that does not fit.
  template <typename T, typename Load>
  base::Result<std::optional<std::vector<T>>> get_numbers(std::string_view key,
                                                          std::string_view wanted,
                                                          const Load& load) const;

  std::string name_;
  base::MappedFile mapped_;  // empty after parse(): the bytes belong to the caller
  uint32_t version_ = 0;
  std::vector<MetadataEntry> metadata_;    // ascending by key
  std::vector<TensorInfo> tensors_;        // in the order of the file
  std::vector<uint32_t> tensors_by_name_;  // indices, ascending by name
};

}  // namespace kvasir::gguf
