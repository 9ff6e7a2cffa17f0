#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <array>
#include <ranges>
#include <utility>

#include "base/check.h"
#include "kernels/kernels.h"
#include "kernels/tables.h"

namespace kvasir::kernels {
namespace {

// Slowest first.
constexpr std::array<std::pair<Isa, std::string_view>, 7> kNames{{
    {Isa::kReference, "reference"},
    {Isa::kAvx2, "avx2"},
    {Isa::kAvxVnni, "avxvnni"},
    {Isa::kAvx512, "avx512"},
    {Isa::kAvx512Bf16, "avx512bf16"},
    {Isa::kAmx, "amx"},
    {Isa::kNeon, "neon"},
}};
constexpr std::array<std::pair<AttentionOrder, std::string_view>, 2> kAttentionOrders{{
    {AttentionOrder::kPairs, "pairs"},
    {AttentionOrder::kTiles, "tiles"},
}};

template <typename Value, size_t kCount>
using Names = std::array<std::pair<Value, std::string_view>, kCount>;

template <typename Value, size_t kCount>
std::string_view name_in(const Names<Value, kCount>& names, Value value) {
  for (const auto& [known, name] : names) {
    if (known == value) return name;
  }
  CHECK(false);  // not one of them
  return {};
}

template <typename Value, size_t kCount>
std::optional<Value> parse_in(const Names<Value, kCount>& names, std::string_view name) {
  for (const auto& [value, known] : names) {
    if (known == name) return value;
  }
  return std::nullopt;
}

#if defined(__x86_64__)
const KernelTable* probed_avx512bf16_kernels() {
  static const KernelTable* const table = avx512bf16_kernels();
  return table;
}

// Linux keeps the state of tiles for processes that ask for it only: Documentation/arch/x86/xstate.
// It stays allowed for all threads; a second request changes nothing.
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr unsigned long kTileData = 18;     // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// CPUID leaf 7, second page: EAX bit 4. It is VEX encoded: who has AVX2 can use it.
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << 4)) != 0;
}

// CPUID leaf 7: EDX bits 22 (AMX-BF16) and 24 (AMX-TILE).
bool has_tiles() {
  constexpr unsigned kWanted = (1u << 22) | (1u << 24);
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kWanted) == kWanted;
}

const KernelTable* probed_amx_kernels() {
  static const KernelTable* const table = has_tiles() && may_use_tiles() ? amx_kernels() : nullptr;
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
    case Isa::kAvxVnni:
      return is_supported(Isa::kAvx2) && has_avx_vnni();
    case Isa::kAvx512:
      return is_supported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    case Isa::kAvx512Bf16:
      return is_supported(Isa::kAvx512) && __builtin_cpu_supports("avx512bf16") &&
             probed_avx512bf16_kernels() != nullptr;
    case Isa::kAmx:
      return is_supported(Isa::kAvx512) && probed_amx_kernels() != nullptr;
#elif defined(__aarch64__)
    case Isa::kNeon:
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#endif
    default:
      return false;
  }
}

}  // namespace

std::string_view isa_name(Isa isa) {
  return name_in(kNames, isa);
}
std::optional<Isa> parse_isa(std::string_view name) {
  return parse_in(kNames, name);
}
std::string_view attention_order_name(AttentionOrder order) {
  return name_in(kAttentionOrders, order);
}
std::optional<AttentionOrder> parse_attention_order(std::string_view name) {
  return parse_in(kAttentionOrders, name);
}

AttentionOrder best_attention_order() {
  return is_supported(Isa::kAmx) ? AttentionOrder::kTiles : AttentionOrder::kPairs;
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
    case Isa::kAvxVnni:
      return &avxvnni_kernels();
    case Isa::kAvx512:
      return &avx512_kernels();
    case Isa::kAvx512Bf16:
      return probed_avx512bf16_kernels();
    case Isa::kAmx:
      return probed_amx_kernels();
#elif defined(__aarch64__)
    case Isa::kNeon:
      return &neon_kernels();
#endif
    default:
      return nullptr;
  }
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
