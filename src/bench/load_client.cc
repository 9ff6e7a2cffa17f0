#include "bench/load_client.h"

#include <fmt/format.h>

#include <chrono>
#include <utility>

namespace kvasir::bench {
namespace {

constexpr std::chrono::milliseconds kTick{100};

}  // namespace

LoadClient::LoadClient(const LoadTarget& target, LoadPlan plan, const LoadHooks& load,
                       const BenchHooks& hooks)
    : target_(target), plan_(std::move(plan)), load_(load), hooks_(hooks) {
  if (plan_.rate) arrivals_.emplace(*plan_.rate, plan_.seed);
}

LoadClient::~LoadClient() = default;

base::Status LoadClient::run() {
  start_us_ = load_clock_us();
  if (arrivals_) next_arrival_us_ = start_us_ + arrivals_->next_us();
  pump();
  tick();
  io_.run();
  if (interrupted_) return base::runtime_error("interrupted");
  return {};
}

bool LoadClient::all_started() const {
  return stopping_ || (plan_.requests && started_ >= *plan_.requests);
}

bool LoadClient::may_start() const {
  if (all_started()) return false;
  return arrivals_ ? next_arrival_us_ <= load_clock_us() : open_.size() < plan_.streams_max;
}

// Starts what may start now, and waits for what comes next.
void LoadClient::pump() {
  while (may_start()) start_next();
  if (!all_started()) return wait_for_arrival();
  if (!open_.empty()) return;
  arrival_timer_.cancel();
  tick_timer_.cancel();
  idle_.clear();
}

void LoadClient::start_next() {
  const uint64_t due_us = arrivals_ ? next_arrival_us_ : load_clock_us();
  if (arrivals_) next_arrival_us_ = start_us_ + arrivals_->next_us();
  std::shared_ptr<LoadConnection> connection;
  if (idle_.empty()) {
    connection = std::make_shared<LoadConnection>(
        io_, target_, [this](const std::shared_ptr<LoadConnection>& ended, StreamResult result) {
          on_finished(ended, std::move(result));
        });
  } else {
    connection = std::move(idle_.back());
    idle_.pop_back();
  }
  open_.insert(connection);
  LoadRequest request = load_.request(started_++);
  const std::string key = plan_.api_keys.empty() ? "" : plan_.api_keys[request.key];
  connection->start(std::move(request), key, due_us);
}

void LoadClient::on_finished(const std::shared_ptr<LoadConnection>& connection,
                             StreamResult result) {
  open_.erase(connection);
  if (connection->reusable()) idle_.push_back(connection);
  ++finished_;
  load_.on_result(std::move(result));
  pump();
}

void LoadClient::wait_for_arrival() {
  if (!arrivals_) return;
  using Clock = std::chrono::steady_clock;
  arrival_timer_.expires_at(Clock::time_point(std::chrono::microseconds(next_arrival_us_)));
  arrival_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) pump();
  });
}

void LoadClient::tick() {
  const uint64_t now_us = load_clock_us();
  if (hooks_.cancelled && hooks_.cancelled()) {
    interrupted_ = true;
    return stop();
  }
  if (plan_.duration_us && now_us - start_us_ >= *plan_.duration_us) return stop();
  give_up_overdue(now_us);
  if (all_started() && open_.empty()) return;
  show_progress(hooks_, fmt::format("load: {} streams ended, {} open", finished_, open_.size()));
  tick_timer_.expires_after(kTick);
  tick_timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) tick();
  });
}

void LoadClient::give_up_overdue(uint64_t now_us) {
  std::vector<std::shared_ptr<LoadConnection>> overdue;
  for (const auto& connection : open_) {
    if (now_us - connection->started_us() >= plan_.timeout_us) overdue.push_back(connection);
  }
  for (const auto& connection : overdue) connection->give_up(Outcome::kTimeout);
}

void LoadClient::stop() {
  stopping_ = true;
  const std::vector<std::shared_ptr<LoadConnection>> left(open_.begin(), open_.end());
  for (const auto& connection : left) connection->give_up(Outcome::kUnfinished);
  pump();
}

}  // namespace kvasir::bench
