// A regular file, mapped read-only. Thread: immutable after open(). Allocates: open() only.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "base/result.h"

namespace kvasir::base {

class MappedFile {
 public:
  // Error: missing, unreadable, or not a regular file.
  static Result<MappedFile> open(const std::string& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_bytes_}; }

  // Gives the memory of whole pages of `part` back; reading them again reads the file again. Bytes
  // that are not of this file are nobody's business here.
  void forget(std::span<const std::byte> part) const;

 private:
  const std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
};

}  // namespace kvasir::base
