// What came of all streams of a load test, in numbers.
//
// Thread: one owner. Allocates: two figures per stream, and a bounded sample of the gaps.
#pragma once

#include <boost/json.hpp>
#include <map>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "bench/load_connection.h"

namespace kvasir::bench {

// Jain's index of fairness: 1 where all values are equal, 1/n where one has everything. Requires:
// none is negative. No values, or all zero: 1.
double jain_index(std::span<const double> values);

// The level up to which each demand is met when `served` is handed out evenly and what somebody
// does not want goes to the others (max-min fairness). As much as the largest demand if there is
// enough for all. Requires: not empty.
double fair_share(std::vector<double> demands, double served);

// A uniform sample of numbers, all of them up to a bound.
class BoundedSample {
 public:
  explicit BoundedSample(size_t size_max) : size_max_(size_max) {}
  void add(double value);
  const std::vector<double>& values() const { return values_; }

 private:
  size_t size_max_;
  uint64_t seen_ = 0;
  std::vector<double> values_;
};

class LoadReport {
 public:
  explicit LoadReport(size_t tenants) : tenants_(tenants) {}

  void add(const StreamResult& result);

  uint64_t failed() const { return failed_; }
  // The first failure, for an error message. Requires: failed() > 0.
  const std::string& first_failure() const { return first_failure_; }
  // The figures of all tenants: ok, failed, tok_s, ttft_ms_p50 ...
  void write(boost::json::object& line, double wall_s) const;
  void write_tenant(boost::json::object& line, size_t tenant, double wall_s) const;
  size_t tenants() const { return tenants_.size(); }

 private:
  // Tokens are of prompts and answers together.
  struct Tenant {
    uint64_t requests = 0;
    uint64_t ok = 0;
    uint64_t refused = 0;
    double tokens_wanted = 0.0;
    double tokens_served = 0.0;
    std::vector<double> ttft_ms;
  };

  void count(Tenant& tenant, const StreamResult& result);
  void count_failure(const StreamResult& result);
  std::vector<double> served_of_fair() const;

  std::vector<Tenant> tenants_;
  uint64_t requests_ = 0;
  uint64_t ok_ = 0;
  uint64_t refused_ = 0;
  uint64_t unfinished_ = 0;
  uint64_t failed_ = 0;
  uint64_t tokens_ = 0;            // prompt and answer, of complete streams
  uint64_t tokens_generated_ = 0;  // of those
  std::map<std::string, uint64_t> failures_;
  std::string first_failure_;
  std::unordered_set<std::string> ids_;
  std::vector<double> ttft_ms_;
  std::vector<double> e2e_ms_;
  BoundedSample itl_ms_{size_t{1} << 20};
};

}  // namespace kvasir::bench
