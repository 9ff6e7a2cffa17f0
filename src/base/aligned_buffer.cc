#include "base/aligned_buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked_math.h"

namespace kvasir::base {
namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kHugePageBytes = size_t{2} << 20;

}  // namespace

Result<AlignedBuffer> AlignedBuffer::create(size_t size_bytes) {
  if (size_bytes == 0) return AlignedBuffer();
  const size_t granule = size_bytes >= kHugePageBytes ? kHugePageBytes : kPageBytes;
  const size_t mapped = align_up(size_bytes, kPageBytes);
  // Over-map by one granule and trim, so that the buffer starts on a huge-page boundary.
  void* raw =
      mmap(nullptr, mapped + granule, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (raw == MAP_FAILED) {
    return runtime_error(fmt::format("can not allocate {} bytes: {}; free memory or ask for less",
                                     size_bytes, std::strerror(errno)));
  }
  auto* begin = static_cast<std::byte*>(raw);
  auto* start = reinterpret_cast<std::byte*>(align_up(reinterpret_cast<uintptr_t>(raw), granule));
  const auto head = static_cast<size_t>(start - begin);
  if (head > 0) munmap(begin, head);
  if (granule > head) munmap(start + mapped, granule - head);
  // What does not fill a huge page, at the end, has ordinary ones: it would be populated whole.
  if (granule == kHugePageBytes) madvise(start, mapped, MADV_HUGEPAGE);
  // Kernels before 5.14 lack MADV_POPULATE_WRITE; then pages are faulted in on first touch.
  if (madvise(start, mapped, MADV_POPULATE_WRITE) != 0 && errno == ENOMEM) {
    munmap(start, mapped);
    return runtime_error(
        fmt::format("can not back {} bytes with memory; free memory or ask for less", size_bytes));
  }
  return AlignedBuffer(start, size_bytes, mapped);
}

AlignedBuffer::AlignedBuffer(AlignedBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)),
      mapped_bytes_(std::exchange(other.mapped_bytes_, 0)) {}

AlignedBuffer& AlignedBuffer::operator=(AlignedBuffer&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  std::swap(mapped_bytes_, other.mapped_bytes_);
  return *this;
}

AlignedBuffer::~AlignedBuffer() {
  if (data_ != nullptr) munmap(data_, mapped_bytes_);
}

}  // namespace kvasir::base
