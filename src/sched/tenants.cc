#include "sched/tenants.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir::sched {
namespace {

// A generated token takes a step of its own; a prompt's tokens share them.
constexpr double kDecodeRowCost = 2.0;
// By so little does one that comes back go before those that stayed: the step that is planned next
// is its own.
constexpr double kHeadStartRows = 1.0;

}  // namespace

Tenants::Tenants(std::span<const double> weights) : tenants_(std::max<size_t>(weights.size(), 1)) {
  for (size_t i = 0; i < weights.size(); ++i) {
    CHECK(weights[i] > 0.0);
    tenants_[i].weight = weights[i];
  }
}

// One that comes back starts almost level with whoever has had least of those that stayed; where
// nobody did, with the last that was there, so that those who come after it owe it nothing for the
// past.
void Tenants::arrived(uint32_t tenant) {
  CHECK(tenant < tenants_.size());
  Tenant& newcomer = tenants_[tenant];
  if (newcomer.sequences++ > 0) return;
  sum_active_weights();
  if (active_++ == 0) {
    newcomer.had = std::max(newcomer.had, had_when_idle_);
    return;
  }
  double least = -1.0;
  for (const Tenant& other : tenants_) {
    if (other.sequences == 0 || &other == &newcomer) continue;
    if (least < 0.0 || other.had < least) least = other.had;
  }
  newcomer.had = std::max(newcomer.had, least - kHeadStartRows);
}

void Tenants::left(uint32_t tenant) {
  CHECK(tenants_[tenant].sequences > 0);
  if (--tenants_[tenant].sequences > 0) return;
  sum_active_weights();
  if (--active_ == 0) had_when_idle_ = tenants_[tenant].had;
}

void Tenants::serve(uint32_t tenant, uint32_t prompt_rows, uint32_t decode_rows) {
  Tenant& served = tenants_[tenant];
  served.had += (prompt_rows + kDecodeRowCost * decode_rows) / served.weight;
}

void Tenants::refresh_order() {
  for (Tenant& tenant : tenants_) tenant.had_at_refresh = tenant.had;
}

void Tenants::sum_active_weights() {
  active_weights_ = 0.0;
  for (const Tenant& tenant : tenants_) {
    if (tenant.sequences > 0) active_weights_ += tenant.weight;
  }
}

double Tenants::share(uint32_t tenant, uint32_t places) const {
  return active_weights_ == 0.0 ? places : places * tenants_[tenant].weight / active_weights_;
}

}  // namespace kvasir::sched
