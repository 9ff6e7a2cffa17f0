#include "api/stop_matcher.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace kvasir::api {
namespace {

// Length of the longest end of `text` that `stop` begins with, shorter than `stop` itself.
size_t overlap(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.ends_with(stop.substr(0, n))) return n;
  }
  return 0;
}

}  // namespace

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
  for (const std::string& stop : stops_) CHECK(!stop.empty());
}

std::string StopMatcher::push(std::string_view piece) {
  if (matched_) return {};
  held_ += piece;
  size_t match = std::string::npos;  // the earliest
  size_t undecided = 0;
  for (const std::string& stop : stops_) {
    match = std::min(match, held_.find(stop));
    undecided = std::max(undecided, overlap(held_, stop));
  }
  matched_ = match != std::string::npos;
  const size_t shown = matched_ ? match : held_.size() - undecided;
  std::string text = held_.substr(0, shown);
  held_.erase(0, matched_ ? held_.size() : shown);
  return text;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace kvasir::api
