#include "serve/json_input.h"

#include <fmt/format.h>

#include <boost/json/basic_parser_impl.hpp>
#include <cmath>
#include <utility>

#include "serve/utf8.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// Builds the values and counts what a document of values can no longer tell: fields that were given
// twice, of which an object keeps one.
class Handler {
 public:
  // NOLINTBEGIN(readability-identifier-naming): the parser looks for these names.
  static constexpr size_t max_object_size = kJsonValuesMax;
  static constexpr size_t max_array_size = kJsonValuesMax;
  static constexpr size_t max_key_size = json::string::max_size();
  static constexpr size_t max_string_size = json::string::max_size();
  // NOLINTEND(readability-identifier-naming)

  Handler() { stack_.reset(); }

  bool on_document_begin(json::error_code&) { return true; }
  bool on_document_end(json::error_code&) { return true; }
  bool on_object_begin(json::error_code& error) { return count(error); }
  bool on_array_begin(json::error_code& error) { return count(error); }
  bool on_object_end(size_t size, json::error_code&) {
    fields_ += size;
    stack_.push_object(size);
    return true;
  }
  bool on_array_end(size_t size, json::error_code&) {
    stack_.push_array(size);
    return true;
  }
  bool on_key_part(json::string_view part, size_t, json::error_code&) {
    stack_.push_chars(part);
    return true;
  }
  bool on_key(json::string_view rest, size_t, json::error_code&) {
    stack_.push_key(rest);
    return true;
  }
  bool on_string_part(json::string_view part, size_t, json::error_code&) {
    stack_.push_chars(part);
    return true;
  }
  bool on_string(json::string_view rest, size_t, json::error_code& error) {
    stack_.push_string(rest);
    return count(error);
  }
  bool on_number_part(json::string_view, json::error_code&) { return true; }
  bool on_int64(int64_t value, json::string_view, json::error_code& error) {
    stack_.push_int64(value);
    return count(error);
  }
  bool on_uint64(uint64_t value, json::string_view, json::error_code& error) {
    stack_.push_uint64(value);
    return count(error);
  }
  bool on_double(double value, json::string_view, json::error_code& error) {
    if (!std::isfinite(value)) return fail(json::error::exponent_overflow, error);
    stack_.push_double(value);
    return count(error);
  }
  bool on_bool(bool value, json::error_code& error) {
    stack_.push_bool(value);
    return count(error);
  }
  bool on_null(json::error_code& error) {
    stack_.push_null();
    return count(error);
  }
  bool on_comment_part(json::string_view, json::error_code&) { return true; }
  bool on_comment(json::string_view, json::error_code&) { return true; }

  json::value take() { return stack_.release(); }
  size_t fields() const { return fields_; }

 private:
  bool count(json::error_code& error) {
    return ++values_ <= kJsonValuesMax || fail(json::error::array_too_large, error);
  }
  static bool fail(json::error reason, json::error_code& error) {
    error = reason;
    return false;
  }

  json::value_stack stack_;
  size_t values_ = 0;
  size_t fields_ = 0;
};

// Fields of all objects in `value`.
size_t count_fields(const json::value& value) {
  size_t fields = 0;
  if (const json::object* object = value.if_object()) {
    fields = object->size();
    for (const json::key_value_pair& field : *object) fields += count_fields(field.value());
  } else if (const json::array* array = value.if_array()) {
    for (const json::value& element : *array) fields += count_fields(element);
  }
  return fields;
}

std::unexpected<ApiError> refuse(std::string message) {
  return std::unexpected(ApiError{.message = std::move(message), .code = "invalid_json"});
}

std::unexpected<ApiError> refuse_syntax(json::error_code error, size_t at) {
  if (error == json::error::too_deep) {
    return refuse(fmt::format("The body is nested deeper than {} levels.", kJsonDepthMax));
  }
  if (error == json::error::array_too_large || error == json::error::object_too_large) {
    return refuse(fmt::format("The body holds more than {} values.", kJsonValuesMax));
  }
  if (error == json::error::exponent_overflow) {
    return refuse(fmt::format("The body holds a number too large for a double, at byte {}.", at));
  }
  return refuse(fmt::format("The body is not valid JSON: {} at byte {}.", error.message(), at));
}

std::unexpected<ApiError> wrong(std::string_view param, std::string_view expected) {
  return invalid(std::string(param), fmt::format("'{}' must be {}.", param, expected));
}

std::optional<int64_t> whole_number(const json::value& value) {
  if (value.is_int64()) return value.get_int64();
  if (!value.is_double()) return std::nullopt;  // also what is beyond int64
  // Up to here every whole number is a double of its own.
  constexpr double kExactMax = 9007199254740992.0;
  const double real = value.get_double();
  if (std::abs(real) > kExactMax || std::trunc(real) != real) return std::nullopt;
  return static_cast<int64_t>(real);
}

}  // namespace

ApiResult<json::object> parse_object(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    return refuse("The body is empty; send a JSON object.");
  }
  if (const auto at = broken_utf8_at(body)) {
    return refuse(fmt::format("The body is not valid UTF-8 at byte {}.", *at));
  }
  json::parse_options options;
  options.max_depth = kJsonDepthMax;
  json::basic_parser<Handler> parser(options);
  json::error_code error;
  const size_t read = parser.write_some(false, body.data(), body.size(), error);
  if (error) return refuse_syntax(error, read);
  if (read < body.size()) {
    return refuse(fmt::format("More follows the JSON object, at byte {}.", read));
  }
  json::value value = parser.handler().take();
  if (!value.is_object()) return refuse("The body is JSON but not an object; send an object.");
  if (count_fields(value) != parser.handler().fields()) {
    return refuse("A field stands twice in one object; give each field once.");
  }
  return std::move(value.get_object());
}

const json::value* find(const json::object& object, std::string_view name) {
  const json::value* value = object.if_contains(name);
  return value == nullptr || value->is_null() ? nullptr : value;
}

ApiResult<int64_t> read_integer(const json::value& value, std::string_view param,
                                const IntegerRange& range) {
  const std::optional<int64_t> number = whole_number(value);
  if (number && *number >= range.min && *number <= range.max) return *number;
  return wrong(param, fmt::format("a whole number from {} to {}", range.min, range.max));
}

ApiResult<double> read_number(const json::value& value, std::string_view param,
                              const NumberRange& range) {
  std::optional<double> number;
  if (value.is_double()) number = value.get_double();
  if (value.is_int64()) number = static_cast<double>(value.get_int64());
  if (value.is_uint64()) number = static_cast<double>(value.get_uint64());
  // Finiteness comes first: a comparison with NaN would let it pass another way round.
  if (number && std::isfinite(*number) && *number >= range.min && *number <= range.max) {
    return *number;
  }
  return wrong(param, fmt::format("a number from {} to {}", range.min, range.max));
}

ApiResult<bool> read_boolean(const json::value& value, std::string_view param) {
  if (value.is_bool()) return value.get_bool();
  return wrong(param, "true or false");
}

ApiResult<std::string> read_string(const json::value& value, std::string_view param) {
  if (value.is_string()) return std::string(value.get_string());
  return wrong(param, "a string");
}

ApiResult<std::vector<TokenId>> read_tokens(const json::value& value, std::string_view param,
                                            size_t vocab_size) {
  if (!value.is_array()) return wrong(param, "a list of token ids");
  std::vector<TokenId> tokens;
  tokens.reserve(value.get_array().size());
  for (const json::value& element : value.get_array()) {
    const std::optional<int64_t> id = whole_number(element);
    if (!id || *id < 0 || static_cast<uint64_t>(*id) >= vocab_size) {
      return wrong(fmt::format("{}[{}]", param, tokens.size()),
                   fmt::format("a token id from 0 to {}", vocab_size - 1));
    }
    tokens.push_back(static_cast<TokenId>(*id));
  }
  return tokens;
}

ApiResult<std::string> read_required_string(const json::object& object, std::string_view name,
                                            std::string_view param) {
  const json::value* value = find(object, name);
  if (value != nullptr) return read_string(*value, param);
  return invalid(std::string(param), fmt::format("'{}' is missing; give a string.", param));
}

ApiResult<bool> read_boolean_or(const json::object& object, std::string_view name, bool fallback) {
  const json::value* value = find(object, name);
  if (value == nullptr) return fallback;
  return read_boolean(*value, name);
}

ApiResult<std::string> read_string_or(const json::object& object, std::string_view name,
                                      std::string_view fallback) {
  const json::value* value = find(object, name);
  if (value == nullptr) return std::string(fallback);
  return read_string(*value, name);
}

}  // namespace kvasir::serve
