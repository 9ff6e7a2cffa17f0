// The cache's statistics as JSON, for people and programs that watch it.
//
// Thread: any. Allocates: freely.
#pragma once

#include <boost/json.hpp>

#include "kv/statistics.h"

namespace kvasir::api {

boost::json::object cache_json(const kv::CacheStats& stats);

}  // namespace kvasir::api
