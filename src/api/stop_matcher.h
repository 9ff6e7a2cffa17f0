// Finds stop strings in streamed text. Text that may be the beginning of a stop string is held
// back until it is decided, so nothing of a stop string is ever shown.
//
// Thread: one owner. Allocates: small strings.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kvasir::api {

class StopMatcher {
 public:
  // Requires: no empty strings.
  explicit StopMatcher(std::vector<std::string> stops);

  // The text that may be shown now. After a match: what stood before it, and nothing ever after.
  std::string push(std::string_view piece);
  // The text still held back; call once, when no more will come.
  std::string finish();
  bool matched() const { return match_.has_value(); }
  // The stop string that matched. Requires: matched().
  const std::string& match() const { return stops_[*match_]; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  std::optional<size_t> match_;
};

}  // namespace kvasir::api
