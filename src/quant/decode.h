// GGUF blocks to f32: the definition of what a stored weight is worth. Slow and obvious.
//
// Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <span>

#include "quant/types.h"

namespace kvasir::quant {

// Decodes one row. Requires: out.size() is a whole number of blocks and
// bytes.size() == row_size_bytes(type, out.size()).
void decode_row(TensorType type, std::span<const std::byte> bytes, std::span<float> out);

}  // namespace kvasir::quant
