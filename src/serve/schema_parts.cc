#include "serve/schema_parts.h"

#include <fmt/format.h>

#include <utility>

namespace kvasir::serve::schema {

namespace json = boost::json;

json::object type(std::string_view name) {
  return {{"type", name}};
}
json::object integer(int64_t min, int64_t max) {
  return {{"type", "integer"}, {"minimum", min}, {"maximum", max}};
}
json::object count() {
  return {{"type", "integer"}, {"minimum", 0}};
}
json::object constant(std::string_view value) {
  return {{"type", "string"}, {"const", value}};
}
json::object list_of(json::value items) {
  return {{"type", "array"}, {"items", std::move(items)}};
}
json::object list_of(json::value items, size_t min, size_t max) {
  json::object list = list_of(std::move(items));
  list["minItems"] = min;
  list["maxItems"] = max;
  return list;
}
json::object any_of(json::array schemas) {
  return {{"anyOf", std::move(schemas)}};
}
json::object names(std::initializer_list<std::string_view> values) {
  json::object schema = type("string");
  json::array& listed = schema["enum"].emplace_array();
  for (const std::string_view value : values) listed.emplace_back(value);
  return schema;
}

json::object or_null(json::object schema) {
  if (json::value* variants = schema.if_contains("anyOf")) {
    variants->as_array().push_back(type("null"));
    return schema;
  }
  json::value name = schema.at("type");
  schema["type"] = json::array{std::move(name), "null"};
  if (json::value* values = schema.if_contains("enum")) values->as_array().push_back(nullptr);
  return schema;
}

json::object object_with(json::object properties,
                         std::initializer_list<std::string_view> required) {
  json::object schema{{"type", "object"}, {"properties", std::move(properties)}};
  if (required.size() == 0) return schema;
  json::array& listed = schema["required"].emplace_array();
  for (const std::string_view name : required) listed.emplace_back(name);
  return schema;
}

json::object record(json::object properties) {
  json::object schema = object_with(std::move(properties));
  json::array& listed = schema["required"].emplace_array();
  for (const json::key_value_pair& field : schema.at("properties").as_object()) {
    listed.emplace_back(field.key());
  }
  return schema;
}

json::object ref(std::string_view name) {
  return {{"$ref", fmt::format("#/components/schemas/{}", name)}};
}

}  // namespace kvasir::serve::schema
