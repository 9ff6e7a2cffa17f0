// A row-major matrix that somebody else owns. Thread: any. Allocates: never.
#pragma once

#include <cstddef>
#include <span>

#include "base/check.h"

namespace kvasir::base {

// shape [rows, columns]; row r begins at data + r * stride, stride >= columns.
template <typename T>
struct Span2D {
  T* data = nullptr;
  size_t rows = 0;
  size_t columns = 0;
  size_t stride = 0;

  Span2D() = default;
  Span2D(T* start, size_t row_count, size_t column_count)
      : Span2D(start, row_count, column_count, column_count) {}
  Span2D(T* start, size_t row_count, size_t column_count, size_t row_stride)
      : data(start), rows(row_count), columns(column_count), stride(row_stride) {
    CHECK(stride >= columns);
  }

  std::span<T> row(size_t r) const {
    CHECK(r < rows);
    return {data + r * stride, columns};
  }
  // Rows [first, first + count).
  Span2D rows_from(size_t first, size_t count) const {
    CHECK(first + count <= rows);
    return {data + first * stride, count, columns, stride};
  }
  // NOLINTNEXTLINE(google-explicit-constructor): a read-only view of a writable one.
  operator Span2D<const T>() const { return {data, rows, columns, stride}; }
};

}  // namespace kvasir::base
