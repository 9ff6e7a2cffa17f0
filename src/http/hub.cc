#include "http/hub.h"

#include <fmt/format.h>

namespace kvasir::http {

std::string Hub::make_request_id() {
  const auto bits = base::random_bits(id_key, ids_made++);
  return fmt::format("req-{:08x}{:08x}{:08x}", bits[0], bits[1], bits[2]);
}

}  // namespace kvasir::http
