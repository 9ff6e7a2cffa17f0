// The vocabulary of a GGUF model: tables whose lengths and ids agree.
// Thread: any. Allocates: yes, at most a small multiple of what the file holds.
#pragma once

#include "base/result.h"
#include "gguf/gguf_file.h"
#include "text/vocab.h"

namespace kvasir::load {

// Error: a vocabulary model other than "gpt2" and "llama", a missing table, lengths that differ or
// an id that is no token; the key is named. `pre_tokenizer` is passed on as it is, "" when absent.
base::Result<text::Vocab> read_vocab(const gguf::GgufFile& file);

}  // namespace kvasir::load
