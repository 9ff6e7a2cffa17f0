#include "http/exchange.h"

namespace kvasir::http {

std::string_view Head::field(std::string_view name) const {
  for (const auto& [known, value] : fields) {
    if (known == name) return value;
  }
  return {};
}

}  // namespace kvasir::http
