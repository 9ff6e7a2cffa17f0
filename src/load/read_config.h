// The hyper-parameters of a GGUF model, typed, ranged and checked against each other.
// Thread: any. Allocates: yes.
#pragma once

#include "base/result.h"
#include "gguf/gguf_file.h"
#include "model/config.h"

namespace kvasir::load {

// Error: an architecture other than "llama", or a key that is missing, out of range, at odds with
// another, or that asks for mathematics this build does not have; the key is named.
// vocab_size is the number of rows of the token embedding.
base::Result<model::ModelConfig> read_config(const gguf::GgufFile& file);

}  // namespace kvasir::load
