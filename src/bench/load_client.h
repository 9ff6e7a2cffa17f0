// Drives many LoadConnections: as many streams at once as allowed, or one whenever it is due.
//
// Thread: one caller, who waits in run(). Allocates: freely, in proportion to the open streams.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_set>
#include <vector>

#include "bench/load_connection.h"
#include "bench/workloads.h"

namespace kvasir::bench {

struct LoadPlan {
  std::vector<std::string> api_keys;  // empty: none is sent
  uint32_t streams_max = 1;           // at once, without a rate
  std::optional<uint64_t> requests;   // nullopt: until duration_us
  std::optional<double> rate;         // arrivals per second
  uint64_t seed = 1;
  uint64_t timeout_us = 0;
  std::optional<uint64_t> duration_us;
};

struct LoadHooks {
  std::function<LoadRequest(uint64_t index)> request;  // the index-th to send
  std::function<void(StreamResult)> on_result;
};

class LoadClient {
 public:
  // The references must outlive the client.
  LoadClient(const LoadTarget& target, LoadPlan plan, const LoadHooks& load,
             const BenchHooks& hooks);
  ~LoadClient();
  LoadClient(const LoadClient&) = delete;
  LoadClient& operator=(const LoadClient&) = delete;

  // Until all has been sent and has ended. Error: Ctrl-C.
  base::Status run();

 private:
  void pump();
  bool may_start() const;
  bool all_started() const;
  void start_next();
  void on_finished(const std::shared_ptr<LoadConnection>& connection, StreamResult result);
  void wait_for_arrival();
  void tick();
  void give_up_overdue(uint64_t now_us);
  void stop();

  const LoadTarget& target_;
  LoadPlan plan_;
  const LoadHooks& load_;
  const BenchHooks& hooks_;
  boost::asio::io_context io_{1};
  boost::asio::steady_timer arrival_timer_{io_};
  boost::asio::steady_timer tick_timer_{io_};
  std::optional<PoissonArrivals> arrivals_;
  uint64_t start_us_ = 0;
  uint64_t next_arrival_us_ = 0;  // on the clock
  uint64_t started_ = 0;
  uint64_t finished_ = 0;
  bool stopping_ = false;
  bool interrupted_ = false;
  std::unordered_set<std::shared_ptr<LoadConnection>> open_;
  std::vector<std::shared_ptr<LoadConnection>> idle_;  // that may be used again
};

}  // namespace kvasir::bench
