#include "base/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/checked_math.h"

namespace kvasir::base {
namespace {

struct FileDescriptor {
  int fd;
  ~FileDescriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must not hang; it is refused below.
  const FileDescriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    return bad_input(fmt::format("{}: {}; check the path", path, std::strerror(errno)));
  }
  struct stat status{};
  if (fstat(file.fd, &status) != 0) {
    return runtime_error(fmt::format("{}: {}", path, std::strerror(errno)));
  }
  if (!S_ISREG(status.st_mode)) {
    return bad_input(fmt::format("{}: not a regular file; give the path of a file", path));
  }
  MappedFile mapped;
  mapped.size_bytes_ = static_cast<size_t>(status.st_size);
  if (mapped.size_bytes_ == 0) return mapped;
  void* data = mmap(nullptr, mapped.size_bytes_, PROT_READ, MAP_PRIVATE, file.fd, 0);
  if (data == MAP_FAILED) {
    mapped.size_bytes_ = 0;
    return runtime_error(fmt::format("{}: can not map: {}", path, std::strerror(errno)));
  }
  mapped.data_ = static_cast<const std::byte*>(data);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_bytes_(std::exchange(other.size_bytes_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_bytes_, other.size_bytes_);
  return *this;
}

void MappedFile::forget(std::span<const std::byte> part) const {
  if (data_ == nullptr || part.data() < data_ || part.data() + part.size() > data_ + size_bytes_) {
    return;
  }
  const auto page_bytes = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<size_t>(part.data() - data_);
  const size_t begin = align_up(offset, page_bytes);
  const size_t end = (offset + part.size()) / page_bytes * page_bytes;
  if (begin >= end) return;
  // No loss if it fails: the system takes pages of files back by itself when memory is short.
  static_cast<void>(madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_bytes_);
}

}  // namespace kvasir::base
