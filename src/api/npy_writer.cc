#include "api/npy_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/checked_math.h"

namespace kvasir::api {
namespace {

static_assert(std::endian::native == std::endian::little);  // the header says '<f4'

constexpr size_t kHeaderAlignment = 64;

}  // namespace

NpyWriter::NpyWriter(std::string path, std::string temporary, uint64_t rows, uint64_t columns)
    : path_(std::move(path)),
      temporary_(std::move(temporary)),
      columns_(columns),
      rows_left_(rows) {}

NpyWriter::NpyWriter(NpyWriter&& other) noexcept {
  *this = std::move(other);
}

NpyWriter& NpyWriter::operator=(NpyWriter&& other) noexcept {
  // What this one held, if anything, goes with `other`.
  std::swap(path_, other.path_);
  std::swap(temporary_, other.temporary_);
  std::swap(columns_, other.columns_);
  std::swap(rows_left_, other.rows_left_);
  std::swap(file_, other.file_);
  return *this;
}

NpyWriter::~NpyWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(temporary_.c_str());
}

base::Result<NpyWriter> NpyWriter::create(const std::string& path, uint64_t rows,
                                          uint64_t columns) {
  NpyWriter writer(path, fmt::format("{}.{}.tmp", path, getpid()), rows, columns);
  writer.file_ = std::fopen(writer.temporary_.c_str(), "wb");
  if (writer.file_ == nullptr) {
    return base::bad_input(
        fmt::format("{}: can not be written: {}; check the folder", path, std::strerror(errno)));
  }
  RETURN_IF_ERROR(writer.write_header());
  return writer;
}

base::Status NpyWriter::write_header() {
  std::string header = fmt::format(
      "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows_left_, columns_);
  // Magic, version, length of what follows; the data begins at a multiple of 64, after '\n'.
  constexpr size_t kPrefixBytes = 10;
  const size_t size = base::align_up(kPrefixBytes + header.size() + 1, kHeaderAlignment);
  header.resize(size - kPrefixBytes - 1, ' ');
  header.push_back('\n');
  CHECK(header.size() < 256);
  const char prefix[kPrefixBytes] = {
      '\x93', 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<char>(header.size()), 0};
  RETURN_IF_ERROR(write(prefix, sizeof(prefix)));
  return write(header.data(), header.size());
}

base::Status NpyWriter::write_row(std::span<const float> row) {
  CHECK(row.size() == columns_);
  CHECK(rows_left_ > 0);
  --rows_left_;
  return write(row.data(), row.size_bytes());
}

base::Status NpyWriter::finish() {
  CHECK(rows_left_ == 0);
  CHECK(file_ != nullptr);
  // From here on the destructor has nothing to do.
  const bool closed = std::fclose(std::exchange(file_, nullptr)) == 0;
  if (closed && std::rename(temporary_.c_str(), path_.c_str()) == 0) return {};
  const auto error = failed();
  unlink(temporary_.c_str());
  return error;
}

base::Status NpyWriter::write(const void* bytes, size_t size_bytes) {
  CHECK(file_ != nullptr);
  if (std::fwrite(bytes, 1, size_bytes, file_) != size_bytes) return failed();
  return {};
}

std::unexpected<base::Error> NpyWriter::failed() const {
  return base::runtime_error(
      fmt::format("{}: can not be written: {}; free some space", path_, std::strerror(errno)));
}

}  // namespace kvasir::api
