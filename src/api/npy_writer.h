// A float32 matrix as a NumPy .npy file, version 1.0: the whole file or none. Rows are written to
// a temporary file beside the target, which finish() renames.
// Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
//
// Thread: one owner. Allocates: create() only.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "base/result.h"

namespace kvasir::api {

class NpyWriter {
 public:
  // Error: the file can not be created.
  static base::Result<NpyWriter> create(const std::string& path, uint64_t rows, uint64_t columns);

  NpyWriter(NpyWriter&& other) noexcept;
  NpyWriter& operator=(NpyWriter&& other) noexcept;
  ~NpyWriter();  // without finish() before: nothing is left behind

  // Requires: row.size() == columns, at most `rows` calls. Error: the disk is full, or the like.
  base::Status write_row(std::span<const float> row);
  // The file is complete and has its name. Requires: `rows` rows were written.
  base::Status finish();

 private:
  NpyWriter(std::string path, std::string temporary, uint64_t rows, uint64_t columns);
  base::Status write(const void* bytes, size_t size_bytes);
  base::Status write_header();
  std::unexpected<base::Error> failed() const;

  std::string path_;
  std::string temporary_;
  uint64_t columns_ = 0;
  uint64_t rows_left_ = 0;
  std::FILE* file_ = nullptr;  // nullptr: moved from, or finished
};

}  // namespace kvasir::api
