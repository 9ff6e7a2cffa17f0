// The schemas of the OpenAPI document by name: what requests may hold and what answers do.
//
// Thread: any; pure functions. Allocates: freely.
#pragma once

#include <boost/json.hpp>

#include "serve/openapi.h"

namespace kvasir::serve {

// Null means absent in every field of a request.
boost::json::object request_schemas(const ApiDescription& api);
boost::json::object answer_schemas();

}  // namespace kvasir::serve
