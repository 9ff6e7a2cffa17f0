// What a model is, for keys of cached keys and values: equal fingerprints mean equal bits.
//
// Thread: one caller; hashing uses the pool. Allocates: a digest per chunk.
#pragma once

#include <cstddef>
#include <span>

#include "base/digest.h"
#include "base/thread_pool.h"
#include "model/config.h"

namespace kvasir::load {

// SHA-256 over the configuration and the SHA-256 of each 4 MiB of packed weights. `pool` may be
// nullptr: the calling thread alone.
base::Sha256Bytes fingerprint_of(const model::ModelConfig& config,
                                 std::span<const std::byte> packed_weights, base::ThreadPool* pool);

}  // namespace kvasir::load
