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
  if (matched()) return {};
  held_ += piece;
  // The match that is complete first wins, so that it does not matter how the text is cut; of two
  // that end together, the longer one.
  size_t begin = std::string::npos;
  size_t end = std::string::npos;
  size_t undecided = 0;
  for (size_t i = 0; i < stops_.size(); ++i) {
    const std::string& stop = stops_[i];
    undecided = std::max(undecided, overlap(held_, stop));
    const size_t at = held_.find(stop);
    if (at == std::string::npos) continue;
    if (at + stop.size() < end || (at + stop.size() == end && at < begin)) {
      begin = at;
      end = at + stop.size();
      match_ = i;
    }
  }
  const size_t shown = matched() ? begin : held_.size() - undecided;
  std::string text = held_.substr(0, shown);
  held_.erase(0, matched() ? held_.size() : shown);
  return text;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace kvasir::api
