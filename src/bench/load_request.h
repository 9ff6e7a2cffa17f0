// What a load test sends, and when: pure functions of its options.
//
// Thread: value types, one owner. Allocates: freely.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "bench/load.h"

namespace kvasir::bench {

struct ServerAddress {
  std::string host;  // a name or an address, IPv6 without brackets
  uint16_t port = 80;
  std::string authority;  // as the Host field says it
};

// "http://127.0.0.1:8080", "http://[::1]:8080/". Error: anything but a plain HTTP server's root.
base::Result<ServerAddress> parse_server_url(std::string_view url);

struct LoadRequest {
  uint64_t index = 0;
  size_t key = 0;  // of the API keys
  uint32_t prompt_tokens = 0;
  uint32_t tokens_wanted = 0;
  std::string body;  // JSON of /v1/completions
};

// The same for the same seed and index, whatever else is sent.
std::vector<TokenId> load_prompt(const LoadOptions& options, uint64_t index);
LoadRequest make_load_request(const LoadOptions& options, uint64_t index);

// Times of independent arrivals: exponential gaps with mean 1 / rate.
class PoissonArrivals {
 public:
  PoissonArrivals(double rate_per_s, uint64_t seed) : rate_per_s_(rate_per_s), seed_(seed) {}
  uint64_t next_us();  // after the start; never less than the one before

 private:
  double rate_per_s_;
  uint64_t seed_;
  uint64_t drawn_ = 0;
  double last_s_ = 0.0;
};

// `count` different numbers below `total`, spread over all of them, in order. All if there are no
// more.
std::vector<size_t> draw_samples(size_t total, size_t count, uint64_t seed);

}  // namespace kvasir::bench
