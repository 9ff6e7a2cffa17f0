// What JSON schemas are put together from.
//
// Thread: any; pure functions. Allocates: freely.
#pragma once

#include <boost/json.hpp>
#include <cstdint>
#include <initializer_list>
#include <string_view>

namespace kvasir::serve::schema {

boost::json::object type(std::string_view name);
boost::json::object integer(int64_t min, int64_t max);
boost::json::object count();  // 0, 1, 2 ...
boost::json::object constant(std::string_view value);
boost::json::object names(std::initializer_list<std::string_view> values);
boost::json::object list_of(boost::json::value items);
boost::json::object list_of(boost::json::value items, size_t min, size_t max);
boost::json::object any_of(boost::json::array schemas);
// The same or null. Requires: a schema with a type or with alternatives.
boost::json::object or_null(boost::json::object schema);
boost::json::object object_with(boost::json::object properties,
                                std::initializer_list<std::string_view> required = {});
// An object that always has all of its fields.
boost::json::object record(boost::json::object properties);
// {"$ref": "#/components/schemas/NAME"}
boost::json::object ref(std::string_view name);

}  // namespace kvasir::serve::schema
