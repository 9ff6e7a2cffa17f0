// exp(x) = 2^n * p(r), n = round(x / ln 2), r = x - n ln 2 in two steps (Cody and Waite, 1980),
// |r| <= ln 2 / 2. The polynomial was fitted for least relative error with its first two
// coefficients held at 1, then rounded coefficient by coefficient; its own error is 0.07 * 2^-24.
#pragma once

namespace kvasir::kernels {

constexpr float kExpMin = -87.3F;  // below: 0. Above it 2^n is a normal number.
constexpr float kExpMax = 88.3F;   // above: exp(88.3), the last one that surely is finite
constexpr float kExpLog2E = 0x1.715476p+0F;
// Adding 1.5 * 2^23 rounds to an integer and leaves it in the low mantissa bits.
constexpr float kExpRound = 0x1.8p+23F;
constexpr float kExpLn2High = 0x1.62e43p-1F;
constexpr float kExpLn2Low = -0x1.05c61p-29F;
constexpr float kExpC2 = 0x1.fffff8p-2F;
constexpr float kExpC3 = 0x1.55548ep-3F;
constexpr float kExpC4 = 0x1.555b98p-5F;
constexpr float kExpC5 = 0x1.123bdep-7F;
constexpr float kExpC6 = 0x1.685188p-10F;

}  // namespace kvasir::kernels
