#include "serve/api_error.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <string_view>

namespace kvasir::serve {
namespace {

std::string_view error_type(unsigned status) {
  if (status == 401) return "authentication_error";
  if (status == 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}

boost::json::value text_or_null(const std::optional<std::string>& text) {
  return text ? boost::json::value(*text) : boost::json::value(nullptr);
}

}  // namespace

std::string error_body(const ApiError& error) {
  return boost::json::serialize(boost::json::object{{"error",
                                                     {{"message", error.message},
                                                      {"type", error_type(error.status)},
                                                      {"param", text_or_null(error.param)},
                                                      {"code", text_or_null(error.code)}}}});
}

http::Response error_response(const ApiError& error) {
  http::Response response{.status = error.status, .body = error_body(error)};
  if (error.retry_after_s) {
    response.fields.emplace_back("Retry-After", fmt::format("{}", *error.retry_after_s));
  }
  return response;
}

}  // namespace kvasir::serve
