#include <array>
#include <utility>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"

namespace kvasir::kernels {
namespace {

constexpr std::array<std::pair<Isa, std::string_view>, 3> kNames{{
    {Isa::kReference, "reference"},
    {Isa::kAvx2, "avx2"},
    {Isa::kAvx512, "avx512"},
}};

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
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
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
#else
    case Isa::kAvx2:
    case Isa::kAvx512:
      return nullptr;
#endif
  }
  return nullptr;
}

const KernelTable& best_kernels() {
  return *find_kernels(supported_isas().back());
}

}  // namespace kvasir::kernels
