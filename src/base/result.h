// Errors of the outside world: files, arguments, requests. One line that says what, where and
// what to do. "Not now" is never an Error but a named outcome of its own.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace kvasir::base {

enum class ErrorKind : uint8_t {
  kBadInput,  // what the user gave can not be used: exit code 2
  kRuntime,   // the machine misbehaved (disk, memory, thread): exit code 1
};

struct [[nodiscard]] Error {
  ErrorKind kind = ErrorKind::kRuntime;
  std::string message;  // one line, no final full stop, no "error:" prefix
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = std::expected<void, Error>;

inline std::unexpected<Error> bad_input(std::string message) {
  return std::unexpected(Error{ErrorKind::kBadInput, std::move(message)});
}
inline std::unexpected<Error> runtime_error(std::string message) {
  return std::unexpected(Error{ErrorKind::kRuntime, std::move(message)});
}

}  // namespace kvasir::base

#define KVASIR_CONCAT_INNER(a, b) a##b
#define KVASIR_CONCAT(a, b) KVASIR_CONCAT_INNER(a, b)

// RETURN_IF_ERROR(expr): leaves the function with expr's Error, if it has one.
#define RETURN_IF_ERROR(expr)                                                                \
  do {                                                                                       \
    if (auto status_ = (expr); !status_) return std::unexpected(std::move(status_).error()); \
  } while (false)

// ASSIGN_OR_RETURN(Type name, expr): binds expr's value, or leaves with its Error.
#define ASSIGN_OR_RETURN(target, expr) \
  ASSIGN_OR_RETURN_INNER(KVASIR_CONCAT(result_, __LINE__), target, expr)
#define ASSIGN_OR_RETURN_INNER(result, target, expr)              \
  auto result = (expr);                                           \
  if (!result) return std::unexpected(std::move(result).error()); \
  target = *std::move(result)
