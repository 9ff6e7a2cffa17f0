// The bytes of a GGUF file to checked tables. See gguf_file.h for the door.
//
// Limits, beyond which a file is refused: 65,536 keys and as many tensors, keys of 64 KiB, arrays
// of 2 Mi elements, metadata of 48 MiB, tensor names of 63 bytes, dimensions of 2^40.
//
// Thread: any. Allocates: in proportion to the keys and tensors that the bytes really hold;
// strings and arrays are not copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "gguf/gguf_file.h"
#include "gguf/metadata.h"

namespace kvasir::gguf {

struct ParsedFile {
  uint32_t version = 0;
  std::vector<MetadataEntry> metadata;    // ascending by key, keys unique
  std::vector<TensorInfo> tensors;        // in the order of the file
  std::vector<uint32_t> tensors_by_name;  // indices, ascending by name, names unique
};

// The result points into `bytes`. Error: one line with `name`, the field and its byte offset.
base::Result<ParsedFile> parse_container(std::span<const std::byte> bytes, const std::string& name);

}  // namespace kvasir::gguf
