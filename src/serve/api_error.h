// What a client did wrong or can not have now, as OpenAI's error object says it.
// https://platform.openai.com/docs/guides/error-codes
//
// Thread: value types.
#pragma once

#include <expected>
#include <optional>
#include <string>

#include "http/exchange.h"

namespace kvasir::serve {

struct ApiError {
  unsigned status = 400;
  std::string message;               // one sentence: what, where, what to do
  std::optional<std::string> param;  // the field that is wrong: "messages[2].content"
  std::optional<std::string> code;   // "unsupported_parameter"; for programs
  std::optional<unsigned> retry_after_s;
};

template <typename T>
using ApiResult = std::expected<T, ApiError>;

inline std::unexpected<ApiError> invalid(std::string param, std::string message) {
  return std::unexpected(
      ApiError{.message = std::move(message), .param = std::move(param), .code = "invalid_value"});
}

// {"error": {"message", "type", "param", "code"}}; the type follows from the status.
std::string error_body(const ApiError& error);
http::Response error_response(const ApiError& error);

}  // namespace kvasir::serve
