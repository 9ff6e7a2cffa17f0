// How much of the machine each tenant has had, so that it can be shared by weight: a virtual token
// counter each (Sheng et al., "Fairness in Serving Large Language Models", arXiv:2401.00588). Who
// has had least goes first; who was away gets no credit for it.
//
// Thread: one owner. Allocates: constructor only.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace kvasir::sched {

class Tenants {
 public:
  // By index; none: one tenant of weight 1. Requires: weights > 0.
  explicit Tenants(std::span<const double> weights);

  uint32_t count() const { return static_cast<uint32_t>(tenants_.size()); }
  // A sequence of the tenant has come, or is gone.
  void arrived(uint32_t tenant);
  void left(uint32_t tenant);
  // Tenants with sequences.
  uint32_t active() const { return active_; }
  // Rows computed for it: of prompts, and of generated tokens, which cost more.
  void serve(uint32_t tenant, uint32_t prompt_rows, uint32_t decode_rows);

  // What it has had when refresh_order() was last called, by weight.
  double had(uint32_t tenant) const { return tenants_[tenant].had_at_refresh; }
  void refresh_order();
  // Its part of `places` among the active tenants.
  double share(uint32_t tenant, uint32_t places) const;

 private:
  struct Tenant {
    double weight = 1.0;
    double had = 0.0;
    double had_at_refresh = 0.0;
    uint32_t sequences = 0;
  };

  void sum_active_weights();

  std::vector<Tenant> tenants_;
  uint32_t active_ = 0;
  double active_weights_ = 0.0;
  double had_when_idle_ = 0.0;  // of the last tenant that left
};

}  // namespace kvasir::sched
