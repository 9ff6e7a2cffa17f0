// Zero-filled memory for weights, KV blocks and activations: 64-byte aligned, in huge pages where
// the system grants them, populated before first use so that no page fault hits a hot path.
//
// Thread: any, one owner. Allocates: create() only.
#pragma once

#include <cstddef>
#include <span>

#include "base/check.h"
#include "base/result.h"

namespace kvasir::base {

class AlignedBuffer {
 public:
  // Zero bytes are allowed and give an empty buffer. Error: the system refuses the memory.
  static Result<AlignedBuffer> create(size_t size_bytes);

  AlignedBuffer() = default;
  AlignedBuffer(AlignedBuffer&& other) noexcept;
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept;
  ~AlignedBuffer();

  std::byte* data() const { return data_; }
  size_t size_bytes() const { return size_bytes_; }

  // `count` elements of T, starting `offset_bytes` into the buffer.
  template <typename T>
  std::span<T> as(size_t offset_bytes, size_t count) const {
    CHECK(offset_bytes % alignof(T) == 0);
    CHECK(offset_bytes + count * sizeof(T) <= size_bytes_);
    return {reinterpret_cast<T*>(data_ + offset_bytes), count};
  }

 private:
  AlignedBuffer(std::byte* data, size_t size_bytes, size_t mapped_bytes)
      : data_(data), size_bytes_(size_bytes), mapped_bytes_(mapped_bytes) {}

  std::byte* data_ = nullptr;
  size_t size_bytes_ = 0;
  size_t mapped_bytes_ = 0;  // what munmap needs: size rounded up to whole pages
};

}  // namespace kvasir::base
