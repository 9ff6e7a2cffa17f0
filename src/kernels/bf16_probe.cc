#include "kernels/bf16_probe.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <random>

#include "base/fp_env.h"
#include "quant/half.h"

namespace kvasir::kernels {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kRounds = 128;  // for each exponent
// Of the products: ordinary, at the edge of denormals, below it, at the edge of overflow.
constexpr std::array kExponents{0, -126, -133, 126};

struct Operands {
  std::array<uint16_t, 2 * kLanes> a;
  std::array<uint16_t, 2 * kLanes> b;
  std::array<float, kLanes> sums;
};

struct TileOperands {
  std::array<uint16_t, 32> a;
  std::array<uint16_t, 32 * kLanes> b;
  std::array<float, kLanes> sums;
};

class Generator {
 public:
  Operands next(int exponent) {
    Operands x;
    for (size_t i = 0; i < 2 * kLanes; ++i) {
      const int first = between(-60, 60);
      x.a[i] = number_near(first);
      x.b[i] = number_near(exponent - first + between(-2, 2));
    }
    for (size_t i = 0; i < kLanes; ++i) {
      x.sums[i] = between(0, 3) > 0 ? sum_near(exponent + between(-12, 2)) : cancelling(x, i);
    }
    return x;
  }

  TileOperands next_tile(int exponent) {
    TileOperands x;
    const int first = between(-60, 60);
    for (uint16_t& a : x.a) a = number_near(first);
    for (uint16_t& b : x.b) b = number_near(exponent - first + between(-2, 2));
    for (float& sum : x.sums) sum = sum_near(exponent + between(-6, 4));
    return x;
  }

 private:
  int between(int low, int high) {
    return low + static_cast<int>(engine_() % static_cast<uint32_t>(high - low + 1));
  }
  // One in sixteen is a denormal or zero.
  uint32_t exponent_bits(int exponent) {
    return between(0, 15) == 0 ? 0 : static_cast<uint32_t>(std::clamp(exponent + 127, 0, 254));
  }
  uint16_t number_near(int exponent) {
    const auto random = static_cast<uint32_t>(engine_());
    const uint32_t mantissa = between(0, 7) == 0 ? 0 : random & 0x7fu;
    return static_cast<uint16_t>((random & 0x8000u) | (exponent_bits(exponent) << 7) | mantissa);
  }
  float sum_near(int exponent) {
    const auto random = static_cast<uint32_t>(engine_());
    const uint32_t mantissa = between(0, 7) == 0 ? 0 : random & 0x7fffffu;
    return std::bit_cast<float>((random & 0x80000000u) | (exponent_bits(exponent) << 23) |
                                mantissa);
  }
  // Minus one of the pair's products: what remains is small, or zero.
  float cancelling(const Operands& x, size_t lane) {
    const size_t i = 2 * lane + static_cast<size_t>(between(0, 1));
    return -(quant::bf16_to_f32(x.a[i]) * quant::bf16_to_f32(x.b[i]));
  }

  std::mt19937 engine_;
};

float exact_sum(const Operands& x, size_t lane) {
  float sum = x.sums[lane];
  for (const size_t i : {2 * lane + 1, 2 * lane}) {
    sum = std::fma(quant::bf16_to_f32(x.a[i]), quant::bf16_to_f32(x.b[i]), sum);
  }
  return sum;
}

float exact_sum(const TileOperands& x, size_t lane) {
  float chains[2] = {0.0F, 0.0F};
  for (size_t k = 0; k < x.a.size(); ++k) {
    const float b = quant::bf16_to_f32(x.b[k / 2 * 2 * kLanes + 2 * lane + k % 2]);
    chains[k % 2] = std::fma(quant::bf16_to_f32(x.a[k]), b, chains[k % 2]);
  }
  return x.sums[lane] + (chains[0] + chains[1]);
}

template <typename Dots, typename Values>
bool is_exact_for(Dots dots, const Values& x) {
  std::array<float, kLanes> sums = x.sums;
  dots(x.a.data(), x.b.data(), sums.data());
  for (size_t lane = 0; lane < kLanes; ++lane) {
    const float expected = exact_sum(x, lane);
    if (std::isnan(expected) && std::isnan(sums[lane])) continue;
    if (std::bit_cast<uint32_t>(expected) != std::bit_cast<uint32_t>(sums[lane])) return false;
  }
  return true;
}

// next(generator, exponent): what to multiply.
template <typename Dots, typename Next>
bool is_always_exact(Dots dots, const Next& next) {
  const base::ScopedFpEnv fp_env;
  Generator generator;
  for (const int exponent : kExponents) {
    for (size_t round = 0; round < kRounds; ++round) {
      if (!is_exact_for(dots, next(generator, exponent))) return false;
    }
  }
  return true;
}

}  // namespace

bool is_exact_dot(PairDots dots) {
  return is_always_exact(dots, [](Generator& from, int exponent) { return from.next(exponent); });
}

bool is_exact_tile(TileDots dots) {
  return is_always_exact(dots,
                         [](Generator& from, int exponent) { return from.next_tile(exponent); });
}

}  // namespace kvasir::kernels
