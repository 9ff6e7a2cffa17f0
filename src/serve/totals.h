// What the answers of a call cost, as clients read it.
// Thread: a value type. Allocates: usage() and timings().
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <limits>

#include "api/service.h"

namespace kvasir::serve {

// Counts are sums; times reach from the first answer that began to the last that ended.
class Totals {
 public:
  // `first`: of its request, whose prompt is counted once.
  void add(const engine::RequestStats& stats, bool first);

  boost::json::object usage() const;    // OpenAI's
  boost::json::object timings() const;  // llama.cpp's

 private:
  uint64_t prompt_tokens_ = 0;
  uint64_t tokens_cached_ = 0;
  uint64_t tokens_generated_ = 0;
  uint64_t begin_us_ = std::numeric_limits<uint64_t>::max();
  uint64_t first_token_us_ = std::numeric_limits<uint64_t>::max();
  uint64_t prompts_done_us_ = 0;
  uint64_t end_us_ = 0;
};

}  // namespace kvasir::serve
