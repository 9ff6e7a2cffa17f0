#include "bench/load_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "base/rng.h"
#include "bench/driver.h"

namespace kvasir::bench {
namespace {

constexpr base::RngKey kSampleKey{.seed = 4};

double ms_between(uint64_t from_us, uint64_t to_us) {
  return to_us > from_us ? static_cast<double>(to_us - from_us) / 1e3 : 0.0;
}

// name_p50, name_p95, name_p99; null where there is nothing.
void write_percentiles(boost::json::object& line, std::string_view name,
                       const std::vector<double>& values) {
  for (const int percent : {50, 95, 99}) {
    boost::json::value& figure = line[fmt::format("{}_p{}", name, percent)];
    if (!values.empty()) figure = percentile(values, percent);
  }
}

double per_second(double count, double wall_s) {
  return wall_s > 0.0 ? count / wall_s : 0.0;
}

}  // namespace

double jain_index(std::span<const double> values) {
  const double sum = std::accumulate(values.begin(), values.end(), 0.0);
  const double squares = std::inner_product(values.begin(), values.end(), values.begin(), 0.0);
  if (squares <= 0.0) return 1.0;
  return sum * sum / (static_cast<double>(values.size()) * squares);
}

double fair_share(std::vector<double> demands, double served) {
  CHECK(!demands.empty());
  std::ranges::sort(demands);
  for (size_t i = 0; i < demands.size(); ++i) {
    const double even = served / static_cast<double>(demands.size() - i);
    if (even < demands[i]) return even;  // from here on nobody gets all
    served -= demands[i];
  }
  return demands.back();
}

// Vitter's algorithm R.
void BoundedSample::add(double value) {
  if (values_.size() < size_max_) {
    values_.push_back(value);
  } else {
    const double place = base::random_unit(kSampleKey, seen_) * static_cast<double>(seen_ + 1);
    if (place < static_cast<double>(size_max_)) values_[static_cast<size_t>(place)] = value;
  }
  ++seen_;
}

void LoadReport::add(const StreamResult& result) {
  ++requests_;
  count(tenants_[result.request.key], result);
  if (result.outcome == Outcome::kRefused) {
    ++refused_;
    return;
  }
  if (result.outcome == Outcome::kUnfinished) {
    ++unfinished_;
    return;
  }
  if (result.outcome != Outcome::kOk) return count_failure(result);
  if (!ids_.insert(result.answer.id).second) {
    StreamResult twice = result;
    twice.outcome = Outcome::kWrongId;
    twice.detail = fmt::format("the id {} is that of another stream, too", result.answer.id);
    return count_failure(twice);
  }
  ++ok_;
  tokens_ += result.request.prompt_tokens + result.request.tokens_wanted;
  tokens_generated_ += result.request.tokens_wanted;
  if (result.answer.first_us) {
    ttft_ms_.push_back(ms_between(result.started_us, *result.answer.first_us));
  }
  e2e_ms_.push_back(ms_between(result.started_us, result.finished_us));
  for (const float gap_ms : result.answer.gaps_ms) itl_ms_.add(gap_ms);
}

// What a stream that was left had got so far is counted by its pieces.
void LoadReport::count(Tenant& tenant, const StreamResult& result) {
  const LoadRequest& request = result.request;
  ++tenant.requests;
  tenant.tokens_wanted += request.prompt_tokens + request.tokens_wanted;
  if (result.outcome == Outcome::kOk) {
    ++tenant.ok;
    tenant.tokens_served += request.prompt_tokens + request.tokens_wanted;
  }
  if (result.outcome == Outcome::kRefused) ++tenant.refused;
  if (result.outcome == Outcome::kUnfinished && result.answer.first_us) {
    tenant.tokens_served += request.prompt_tokens + result.answer.pieces;
  }
  const bool answered = result.outcome == Outcome::kOk || result.outcome == Outcome::kUnfinished;
  if (answered && result.answer.first_us) {
    tenant.ttft_ms.push_back(ms_between(result.started_us, *result.answer.first_us));
  }
}

void LoadReport::count_failure(const StreamResult& result) {
  ++failed_;
  std::string name(outcome_name(result.outcome));
  if (result.outcome == Outcome::kStatus) name = fmt::format("http_{}", result.status);
  ++failures_[name];
  if (failed_ > 1) return;
  first_failure_ = fmt::format("request {}: {}", result.request.index, name);
  if (!result.detail.empty()) first_failure_ += fmt::format(" ({})", result.detail);
}

// How much each tenant got of what it should have: of its demand or, where that is more, of its
// fair share of all that was served.
std::vector<double> LoadReport::served_of_fair() const {
  std::vector<double> demands;
  double served = 0.0;
  for (const Tenant& tenant : tenants_) {
    demands.push_back(tenant.tokens_wanted);
    served += tenant.tokens_served;
  }
  const double share = fair_share(demands, served);
  std::vector<double> ratios;
  for (const Tenant& tenant : tenants_) {
    const double due = std::min(tenant.tokens_wanted, share);
    if (due > 0.0) ratios.push_back(tenant.tokens_served / due);
  }
  return ratios;
}

void LoadReport::write(boost::json::object& line, double wall_s) const {
  line["requests"] = requests_;
  line["ok"] = ok_;
  line["failed"] = failed_;
  line["refused_429"] = refused_;
  line["unfinished"] = unfinished_;
  boost::json::object& failures = line["failures"].emplace_object();
  for (const auto& [name, count] : failures_) failures[name] = count;
  line["wall_s"] = wall_s;
  line["tok_s"] = per_second(static_cast<double>(tokens_), wall_s);
  line["generated_tok_s"] = per_second(static_cast<double>(tokens_generated_), wall_s);
  write_percentiles(line, "ttft_ms", ttft_ms_);
  write_percentiles(line, "itl_ms", itl_ms_.values());
  write_percentiles(line, "e2e_ms", e2e_ms_);
  if (tenants_.size() > 1) line["jain"] = jain_index(served_of_fair());
}

void LoadReport::write_tenant(boost::json::object& line, size_t tenant, double wall_s) const {
  const Tenant& figures = tenants_[tenant];
  line["requests"] = figures.requests;
  line["ok"] = figures.ok;
  line["refused_429"] = figures.refused;
  line["tok_s"] = per_second(figures.tokens_served, wall_s);
  write_percentiles(line, "ttft_ms", figures.ttft_ms);
}

}  // namespace kvasir::bench
