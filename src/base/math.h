// Elementary functions in double precision from IEEE basic operations only, so that load-time
// tables and sampling have the same bits on every machine and C library. Accurate to a few ulp.
//
// Thread: any, inside ScopedFpEnv. Allocates: never.
#pragma once

namespace kvasir::base {

double exp_exact(double x);
double log_exact(double x);            // requires x > 0 and finite
double pow_exact(double x, double y);  // requires x > 0
struct SinCos {
  double sin;
  double cos;
};
constexpr double kSinCosMax = 0x1p26;
SinCos sincos_exact(double x);  // requires |x| <= 2^26

}  // namespace kvasir::base
