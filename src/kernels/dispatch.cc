#include <array>
#include <ranges>
#include <utility>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"

namespace kvasir::kernels {
namespace {

// Slowest first.
constexpr std::array<std::pair<Isa, std::string_view>, 4> kNames{{
    {Isa::kReference, "reference"},
    {Isa::kAvx2, "avx2"},
    {Isa::kAvx512, "avx512"},
    {Isa::kAvx512Bf16, "avx512bf16"},
}};

#if defined(__x86_64__)
const KernelTable* probed_avx512bf16_kernels() {
  static const KernelTable* const table = avx512bf16_kernels();
  return table;
}
#endif

// A VDPBF16PS replaces two fmas. AMD's (Zen 4 and later) are issued as often as fmas; Intel's every
// other cycle beside two fmas in each, so there it takes twice the time: measured on a Xeon with
// AMX, prefill attention took 1.4 times as long.
bool has_fast_bf16_dots() {
#if defined(__x86_64__)
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

// The compiler's detection also asks whether the operating system saves the wide registers.
bool is_supported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return true;
#if defined(__x86_64__)
    case Isa::kAvx2:
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
             __builtin_cpu_supports("f16c");
    case Isa::kAvx512:
      return is_supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return is_supported(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16") &&
             probed_avx512bf16_kernels() != nullptr;
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      return false;
#endif
  }
  return false;
}

}  // namespace

std::string_view isa_name(Isa isa) {
  for (const auto& [known, name] : kNames) {
    if (known == isa) return name;
  }
  CHECK(false);  // not an instruction set
  return {};
}

std::optional<Isa> parse_isa(std::string_view name) {
  for (const auto& [isa, known] : kNames) {
    if (known == name) return isa;
  }
  return std::nullopt;
}

std::vector<Isa> supported_isas() {
  std::vector<Isa> isas;
  for (const auto& [isa, name] : kNames) {
    if (is_supported(isa)) isas.push_back(isa);
  }
  return isas;
}

const KernelTable* find_kernels(Isa isa) {
  if (!is_supported(isa)) return nullptr;
  switch (isa) {
    case Isa::kReference:
      return &reference_kernels();
#if defined(__x86_64__)
    case Isa::kAvx2:
      return &avx2_kernels();
    case Isa::kAvx512:
      return &avx512_kernels();
    case Isa::kAvx512Bf16:
      return probed_avx512bf16_kernels();
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      return nullptr;
#endif
  }
  return nullptr;
}

const KernelTable& best_kernels() {
  for (const auto& [isa, name] : kNames | std::views::reverse) {
    // Not even probed where it would not be taken.
    if (isa == Isa::kAvx512Bf16 && !has_fast_bf16_dots()) continue;
    if (const KernelTable* table = find_kernels(isa)) return *table;
  }
  return reference_kernels();
}

}  // namespace kvasir::kernels
