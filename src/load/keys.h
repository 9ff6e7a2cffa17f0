// Typed, ranged reading of a GGUF file's keys: what every reader in this folder needs.
//
// Thread: any. Allocates: messages only. Errors: bad input, one line with file and key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "gguf/gguf_file.h"

namespace kvasir::load {

struct UnsignedRange {
  uint64_t min = 0;
  uint64_t max = 0;
};

class Keys {
 public:
  // `prefix` is put before every key, e.g. "llama.". `file` must outlive this object.
  Keys(const gguf::GgufFile& file, std::string prefix) : file_(file), prefix_(std::move(prefix)) {}

  std::string full(std::string_view key) const { return prefix_ + std::string(key); }

  base::Result<uint64_t> required_unsigned(std::string_view key, UnsignedRange range) const;
  base::Result<std::optional<uint64_t>> optional_unsigned(std::string_view key,
                                                          UnsignedRange range) const;
  // Finite and > 0 as f32.
  base::Result<std::optional<float>> optional_positive(std::string_view key) const;
  // The key is absent or `neutral`, the value that changes nothing.
  base::Status expect_neutral(std::string_view key, double neutral) const;
  base::Status expect_neutral(std::string_view key, bool neutral) const;

  // "FILE: key 'KEY': PROBLEM"
  std::unexpected<base::Error> refuse(std::string_view key, std::string_view problem) const;

 private:
  const gguf::GgufFile& file_;
  std::string prefix_;
};

}  // namespace kvasir::load
