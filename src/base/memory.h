// How much memory the machine could still give. Thread: any. Allocates: small strings.
#pragma once

#include <cstdint>
#include <optional>

namespace kvasir::base {

// Bytes that can be had without swapping, by the kernel's own estimate and within the container's
// limit; nullopt: it does not say.
std::optional<uint64_t> memory_available_bytes();

}  // namespace kvasir::base
