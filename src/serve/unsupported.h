// Fields that other servers know and whose feature does not exist here. Ignoring them would give an
// answer to another question, so they are refused by name.
// Thread: any. Allocates: on refusal.
#pragma once

#include "serve/parameters.h"

namespace kvasir::serve {

// Error: 400 with code "unsupported_parameter".
ApiStatus check_supported(const boost::json::object& body, Dialect dialect);

// The refusal itself, for fields inside others. `feature`: what there is none of.
std::unexpected<ApiError> unsupported(std::string param, std::string_view feature);

}  // namespace kvasir::serve
