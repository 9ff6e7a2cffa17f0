#include "base/math.h"

#include <bit>
#include <cmath>
#include <cstdint>

#include "base/check.h"

// std::fma, std::floor and std::rint below are IEEE-exact operations, not approximations.
namespace kvasir::base {
namespace {

constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLn2High = 0x1.62e42fefa3800p-1;  // low bits zero: n * kLn2High is exact
constexpr double kLn2Low = 0x1.ef35793c76730p-45;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
// pi/2 in three parts of 33 bits, so that n * part is exact for |n| < 2^20.
constexpr double kHalfPi1 = 0x1.921fb54400000p+0;
constexpr double kHalfPi2 = 0x1.0b4611a600000p-34;
constexpr double kHalfPi3 = 0x1.3198a2e037073p-69;

// Sum of coefficients[i] * x^i by Horner's rule.
template <size_t N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[N - 1];
  for (size_t i = N - 1; i-- > 0;) sum = std::fma(sum, x, coefficients[i]);
  return sum;
}

double sin_near_zero(double r) {  // |r| <= pi/4, Taylor to r^17
  constexpr double kC[] = {1.0,
                           -1.0 / 6,
                           1.0 / 120,
                           -1.0 / 5040,
                           1.0 / 362880,
                           -1.0 / 39916800,
                           1.0 / 6227020800,
                           -1.0 / 1307674368000,
                           1.0 / 355687428096000};
  return r * polynomial(kC, r * r);
}

double cos_near_zero(double r) {  // |r| <= pi/4, Taylor to r^18
  constexpr double kC[] = {1.0,
                           -1.0 / 2,
                           1.0 / 24,
                           -1.0 / 720,
                           1.0 / 40320,
                           -1.0 / 3628800,
                           1.0 / 479001600,
                           -1.0 / 87178291200,
                           1.0 / 20922789888000,
                           -1.0 / 6402373705728000};
  return polynomial(kC, r * r);
}

}  // namespace

double exp_exact(double x) {
  if (x < -708.0) return 0.0;
  if (x > 709.0) return HUGE_VAL;
  const double n = std::rint(x * kLog2E);
  const double r = std::fma(-n, kLn2Low, std::fma(-n, kLn2High, x));
  constexpr double kC[] = {1.0,
                           1.0,
                           1.0 / 2,
                           1.0 / 6,
                           1.0 / 24,
                           1.0 / 120,
                           1.0 / 720,
                           1.0 / 5040,
                           1.0 / 40320,
                           1.0 / 362880,
                           1.0 / 3628800,
                           1.0 / 39916800,
                           1.0 / 479001600,
                           1.0 / 6227020800};
  const auto exponent = static_cast<int64_t>(n);
  // 2^n in two factors, so that neither leaves the normal range.
  const auto power_of_two = [](int64_t e) {
    return std::bit_cast<double>(static_cast<uint64_t>(e + 1023) << 52);
  };
  return polynomial(kC, r) * power_of_two(exponent / 2) * power_of_two(exponent - exponent / 2);
}

double log_exact(double x) {
  CHECK(x > 0.0);
  // x = m * 2^e with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh((m - 1) / (m + 1)).
  const auto bits = std::bit_cast<uint64_t>(x);
  auto exponent = static_cast<int64_t>(bits >> 52) - 1023;
  auto m = std::bit_cast<double>((bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL);
  if (m > 0x1.6a09e667f3bcdp+0) {
    m *= 0.5;
    ++exponent;
  }
  const double s = (m - 1.0) / (m + 1.0);
  constexpr double kC[] = {1.0,      1.0 / 3,  1.0 / 5,  1.0 / 7,  1.0 / 9, 1.0 / 11,
                           1.0 / 13, 1.0 / 15, 1.0 / 17, 1.0 / 19, 1.0 / 21};
  const double log_m = 2.0 * s * polynomial(kC, s * s);
  const auto e = static_cast<double>(exponent);
  return std::fma(e, kLn2High, std::fma(e, kLn2Low, log_m));
}

double pow_exact(double x, double y) {
  return exp_exact(y * log_exact(x));
}

SinCos sincos_exact(double x) {
  CHECK(x >= -kSinCosMax && x <= kSinCosMax);
  const double n = std::rint(x * kTwoOverPi);
  double r = std::fma(-n, kHalfPi1, x);
  r = std::fma(-n, kHalfPi2, r);
  r = std::fma(-n, kHalfPi3, r);
  const double s = sin_near_zero(r);
  const double c = cos_near_zero(r);
  switch (static_cast<int64_t>(n) & 3) {
    case 0:
      return {s, c};
    case 1:
      return {c, -s};
    case 2:
      return {-s, -c};
    default:
      return {-c, s};
  }
}

}  // namespace kvasir::base
