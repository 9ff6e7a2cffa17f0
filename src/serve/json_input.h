// JSON from the network, strictly: what has passed parse_object() holds UTF-8 only, no field twice,
// finite numbers, and is neither deep nor large. Messages of errors never repeat what was sent.
//
// Whole numbers: 1, 1.0 and 1e3 are, 1.5 is not.
//
// Thread: any. Allocates: every call.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/llm.h"
#include "serve/api_error.h"

namespace kvasir::serve {

using ApiStatus = ApiResult<void>;

constexpr size_t kJsonDepthMax = 64;
constexpr size_t kJsonValuesMax = size_t{1} << 20;  // of all kinds, in one document

// Error: 400, anything but one JSON object.
ApiResult<boost::json::object> parse_object(std::string_view body);

// The value of a field; nullptr: absent, or null, which means the same.
const boost::json::value* find(const boost::json::object& object, std::string_view name);

struct IntegerRange {
  int64_t min = 0;
  int64_t max = 0;
};
struct NumberRange {
  double min = 0.0;
  double max = 0.0;
};

// What a value must be. Error: 400 that names the field: `param`.
ApiResult<int64_t> read_integer(const boost::json::value& value, std::string_view param,
                                const IntegerRange& range);
ApiResult<double> read_number(const boost::json::value& value, std::string_view param,
                              const NumberRange& range);
ApiResult<bool> read_boolean(const boost::json::value& value, std::string_view param);
ApiResult<std::string> read_string(const boost::json::value& value, std::string_view param);
ApiResult<std::vector<TokenId>> read_tokens(const boost::json::value& value, std::string_view param,
                                            size_t vocab_size);
ApiResult<std::string> read_required_string(const boost::json::object& object,
                                            std::string_view name, std::string_view param);

// The same for a field that may be absent.
ApiResult<bool> read_boolean_or(const boost::json::object& object, std::string_view name,
                                bool fallback);
ApiResult<std::string> read_string_or(const boost::json::object& object, std::string_view name,
                                      std::string_view fallback);

}  // namespace kvasir::serve
