// The move-only handles of the door.
#include <utility>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

Lease::Lease(Lease&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), table_(other.table_) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(table_, other.table_);
  return *this;
}

Lease::~Lease() {
  if (cache_ != nullptr) cache_->close(table_, /*seals_tail=*/true);
}

Reservation::Reservation(Reservation&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), table_(other.table_) {}

Reservation& Reservation::operator=(Reservation&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(table_, other.table_);
  return *this;
}

Reservation::~Reservation() {
  if (cache_ != nullptr) cache_->end_reservation(table_);
}

Pin::Pin(Pin&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)), last_(other.last_) {}

Pin& Pin::operator=(Pin&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(last_, other.last_);
  return *this;
}

Pin::~Pin() {
  if (cache_ != nullptr) cache_->unpin(last_);
}

}  // namespace kvasir::kv
