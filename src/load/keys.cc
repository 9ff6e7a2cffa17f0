#include "load/keys.h"

#include <fmt/format.h>

#include <cmath>

namespace kvasir::load {

std::unexpected<base::Error> Keys::refuse(std::string_view key, std::string_view problem) const {
  return base::bad_input(
      fmt::format("{}: key {}: {}", file_.name(), gguf::printable(full(key)), problem));
}

base::Result<std::optional<uint64_t>> Keys::optional_unsigned(std::string_view key,
                                                              UnsignedRange range) const {
  if (file_.get_integers(full(key)).value_or(std::nullopt)) {
    return refuse(key, "values that differ by layer are not supported; use another model");
  }
  ASSIGN_OR_RETURN(const auto value, file_.get_unsigned(full(key)));
  if (value && (*value < range.min || *value > range.max)) {
    return refuse(key, fmt::format("{} is not {} to {}; convert the model again", *value, range.min,
                                   range.max));
  }
  return value;
}

base::Result<uint64_t> Keys::required_unsigned(std::string_view key, UnsignedRange range) const {
  ASSIGN_OR_RETURN(const auto value, optional_unsigned(key, range));
  if (!value) return refuse(key, "missing; convert the model again");
  return *value;
}

base::Result<std::optional<float>> Keys::optional_positive(std::string_view key) const {
  ASSIGN_OR_RETURN(const auto value, file_.get_float(full(key)));
  if (!value) return std::nullopt;
  const auto single = static_cast<float>(*value);
  if (!std::isfinite(single) || single <= 0.0F) {
    return refuse(key,
                  fmt::format("{} is not finite and positive; convert the model again", *value));
  }
  return single;
}

base::Status Keys::expect_neutral(std::string_view key, double neutral) const {
  if (!file_.has(full(key))) return {};
  ASSIGN_OR_RETURN(const auto value, file_.get_float(full(key)));
  if (value == neutral) return {};
  return refuse(
      key, fmt::format("{} is not supported (only {} is); use another model", *value, neutral));
}

base::Status Keys::expect_neutral(std::string_view key, bool neutral) const {
  ASSIGN_OR_RETURN(const auto value, file_.get_bool(full(key)));
  if (!value || *value == neutral) return {};
  return refuse(key, fmt::format("{} is not supported; use another model", *value));
}

}  // namespace kvasir::load
