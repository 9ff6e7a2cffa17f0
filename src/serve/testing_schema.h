// JSON Schema, as far as the description of our interface uses it.
// Thread: any. Allocates: yes.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cmath>
#include <regex>
#include <string>
#include <string_view>

namespace kvasir::serve::testing {

// Checks values against schemas, as far as the document uses JSON Schema. Says what is wrong first;
// a keyword that it does not know is wrong, too.
class SchemaValidator {
 public:
  explicit SchemaValidator(const boost::json::object& schemas) : schemas_(schemas) {}

  std::string check(std::string_view name, const boost::json::value& value) const {
    return check(schemas_.at(name).as_object(), value);
  }

  std::string check(const boost::json::object& schema, const boost::json::value& value) const {
    for (const boost::json::key_value_pair& keyword : schema) {
      const std::string wrong = check_keyword(keyword.key(), keyword.value(), value);
      if (!wrong.empty()) return wrong;
    }
    return "";
  }

 private:
  std::string check_keyword(std::string_view name, const boost::json::value& wanted,
                            const boost::json::value& value) const {
    const auto failed = [&] {
      return fmt::format("{} {} does not hold for {}", name, boost::json::serialize(wanted),
                         boost::json::serialize(value).substr(0, 200));
    };
    if (name == "description" || name == "default" || name == "example") return "";
    if (name == "$ref") return check(std::string_view(wanted.as_string()).substr(21), value);
    if (name == "anyOf") return check_any(wanted.as_array(), value) ? "" : failed();
    if (name == "type") return has_type(wanted, value) ? "" : failed();
    if (name == "const") return value == wanted ? "" : failed();
    if (name == "enum") return std::ranges::count(wanted.as_array(), value) > 0 ? "" : failed();
    if (value.is_number()) return holds_for_number(name, wanted, value) ? "" : failed();
    if (value.is_string()) return holds_for_text(name, wanted, value) ? "" : failed();
    if (value.is_array()) return check_array(name, wanted, value.get_array());
    if (value.is_object()) return check_object(name, wanted, value.get_object());
    return "";
  }

  bool check_any(const boost::json::array& schemas, const boost::json::value& value) const {
    return std::ranges::any_of(schemas, [&](const boost::json::value& schema) {
      return check(schema.as_object(), value).empty();
    });
  }

  static bool has_type(const boost::json::value& type, const boost::json::value& value) {
    if (const boost::json::array* types = type.if_array()) {
      return std::ranges::any_of(*types, [&](const auto& one) { return has_type(one, value); });
    }
    const std::string_view name = type.as_string();
    if (name == "null") return value.is_null();
    if (name == "boolean") return value.is_bool();
    if (name == "string") return value.is_string();
    if (name == "array") return value.is_array();
    if (name == "object") return value.is_object();
    if (name == "number") return value.is_number();
    EXPECT_EQ(name, "integer");
    if (value.is_double()) return std::trunc(value.get_double()) == value.get_double();
    return value.is_int64() || value.is_uint64();
  }

  static bool holds_for_number(std::string_view name, const boost::json::value& wanted,
                               const boost::json::value& value) {
    const auto number = value.to_number<double>();
    if (name == "minimum") return number >= wanted.to_number<double>();
    if (name == "maximum") return number <= wanted.to_number<double>();
    return is_keyword(name);
  }

  static bool holds_for_text(std::string_view name, const boost::json::value& wanted,
                             const boost::json::value& value) {
    const std::string text(value.get_string());
    if (name == "minLength") return text.size() >= wanted.to_number<size_t>();
    if (name == "maxLength") return text.size() <= wanted.to_number<size_t>();
    if (name != "pattern") return is_keyword(name);
    return std::regex_search(text, std::regex(std::string(wanted.as_string())));
  }

  std::string check_array(std::string_view name, const boost::json::value& wanted,
                          const boost::json::array& list) const {
    if (name == "minItems" && list.size() < wanted.to_number<size_t>()) return "too few items";
    if (name == "maxItems" && list.size() > wanted.to_number<size_t>()) return "too many items";
    if (name == "prefixItems") {
      for (size_t i = 0; i < std::min(list.size(), wanted.as_array().size()); ++i) {
        const std::string wrong = check(wanted.as_array()[i].as_object(), list[i]);
        if (!wrong.empty()) return wrong;
      }
    }
    if (name != "items") return is_keyword(name) ? "" : fmt::format("unknown keyword {}", name);
    for (const boost::json::value& item : list) {
      const std::string wrong = check(wanted.as_object(), item);
      if (!wrong.empty()) return wrong;
    }
    return "";
  }

  std::string check_object(std::string_view name, const boost::json::value& wanted,
                           const boost::json::object& object) const {
    if (name == "maxProperties" && object.size() > wanted.to_number<size_t>()) return "too large";
    if (name == "required") {
      for (const boost::json::value& field : wanted.as_array()) {
        if (!object.contains(field.as_string()))
          return fmt::format("missing {}", field.as_string().c_str());
      }
    }
    for (const boost::json::key_value_pair& field : object) {
      std::string wrong;
      if (name == "propertyNames")
        wrong = check(wanted.as_object(), boost::json::value(field.key()));
      if (name == "additionalProperties") wrong = check(wanted.as_object(), field.value());
      if (const boost::json::object* own = name == "properties" ? wanted.if_object() : nullptr) {
        const boost::json::value* schema = own->if_contains(field.key());
        if (schema != nullptr) wrong = check(schema->as_object(), field.value());
      }
      if (!wrong.empty()) return std::string(field.key()) + ": " + wrong;
    }
    return is_keyword(name) ? "" : fmt::format("unknown keyword {}", name);
  }

  static bool is_keyword(std::string_view name) {
    constexpr std::string_view kKeywords[] = {
        "minimum",       "maximum",      "minLength",   "maxLength",
        "pattern",       "items",        "prefixItems", "minItems",
        "maxItems",      "properties",   "required",    "additionalProperties",
        "propertyNames", "maxProperties"};
    return std::ranges::count(kKeywords, name) > 0;
  }

  const boost::json::object& schemas_;
};

}  // namespace kvasir::serve::testing
