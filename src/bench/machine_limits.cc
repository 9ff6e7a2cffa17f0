#include "bench/machine_limits.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "bench/stopwatch.h"

namespace kvasir::bench {
namespace {

// A sample is taken piece by piece, as kernels take their work, so that a thread that is held up
// holds up nobody else.
constexpr size_t kDotPieces = 64;          // of each thread
constexpr uint64_t kDotPieceTurns = 4096;  // 20 microseconds; all of it about a millisecond
constexpr size_t kReadPieceBytes = size_t{1} << 20;
constexpr size_t kReadTurnBytes = 512;

// What the instructions are fed with: numbers near 1 whether read as int8, bf16 or f32, because
// multiplying zeros would cost less power and run at a higher clock than real work.
struct alignas(64) Operand {
  std::array<uint32_t, 16> words;
};
constexpr Operand kOperand = {{0x3f9a3f65, 0x3f813f7a, 0x3fb03f41, 0x3f8c3f5e, 0x3fa73f52,
                               0x3f953f6b, 0x3fbd3f47, 0x3f883f73, 0x3f9f3f59, 0x3fb63f4d,
                               0x3f843f61, 0x3fa23f7d, 0x3f913f56, 0x3fab3f68, 0x3fb93f4a,
                               0x3f8e3f70}};

#if defined(__x86_64__)

// Each loop is one asm block: what is measured is exactly what is written, in every build type, and
// the compiler gets no chance to use the wide instructions anywhere else.

// Twelve independent accumulators hide the latency of everything measured here.
#define KVASIR_TWELVE(instruction)                                                         \
  instruction("0") instruction("1") instruction("2") instruction("3") instruction("4")     \
      instruction("5") instruction("6") instruction("7") instruction("8") instruction("9") \
          instruction("10") instruction("11")
#define KVASIR_VECTOR_REGISTERS                                                            \
  "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
      "xmm11", "xmm12", "xmm13", "xmm14", "xmm15"
#define KVASIR_LOOP(load, instruction)                                                   \
  asm volatile(load "1:\n\t" KVASIR_TWELVE(instruction) "dec %0\n\tjnz 1b\n\tvzeroupper" \
               : "+r"(turns)                                                             \
               : "r"(operand)                                                            \
               : "cc", "memory", KVASIR_VECTOR_REGISTERS)

#define KVASIR_LOAD_ZMM "vmovdqu64 (%1), %%zmm15\n\tvmovdqu64 (%1), %%zmm14\n\t"
#define KVASIR_LOAD_YMM "vmovdqu (%1), %%ymm15\n\tvmovdqu 32(%1), %%ymm14\n\t"
#define KVASIR_VPDPBUSD(n) "vpdpbusd %%zmm14, %%zmm15, %%zmm" n "\n\t"
#define KVASIR_VDPBF16PS(n) "vdpbf16ps %%zmm14, %%zmm15, %%zmm" n "\n\t"
#define KVASIR_VFMADD_ZMM(n) "vfmadd231ps %%zmm14, %%zmm15, %%zmm" n "\n\t"
#define KVASIR_VPDPBUSD_YMM(n) "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm" n "\n\t"
#define KVASIR_VFMADD_YMM(n) "vfmadd231ps %%ymm14, %%ymm15, %%ymm" n "\n\t"
// Bytes to pairs to fours to the accumulator: what AVX2 has in place of vpdpbusd.
#define KVASIR_VPMADDUBSW(n)                 \
  "vpmaddubsw %%ymm14, %%ymm15, %%ymm12\n\t" \
  "vpmaddwd %%ymm15, %%ymm12, %%ymm13\n\t"   \
  "vpaddd %%ymm13, %%ymm" n ", %%ymm" n "\n\t"

[[gnu::target("avx512f,avx512vnni")]] void run_vpdpbusd(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_ZMM, KVASIR_VPDPBUSD);
}
[[gnu::target("avx512f,avx512bf16")]] void run_vdpbf16ps(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_ZMM, KVASIR_VDPBF16PS);
}
[[gnu::target("avx512f")]] void run_vfmadd_zmm(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_ZMM, KVASIR_VFMADD_ZMM);
}
[[gnu::target("avx2")]] void run_vpmaddubsw(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_YMM, KVASIR_VPMADDUBSW);
}
[[gnu::target("avx2,avxvnni")]] void run_vpdpbusd_ymm(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_YMM, KVASIR_VPDPBUSD_YMM);
}
[[gnu::target("avx2,fma")]] void run_vfmadd_ymm(uint64_t turns, const std::byte* operand) {
  KVASIR_LOOP(KVASIR_LOAD_YMM, KVASIR_VFMADD_YMM);
}

[[gnu::target("avx512f")]] void read_zmm(const std::byte* data, size_t turns) {
  asm volatile(
      "1:\n\t"
      "vmovdqu64 (%0), %%zmm0\n\t"
      "vmovdqu64 64(%0), %%zmm1\n\t"
      "vmovdqu64 128(%0), %%zmm2\n\t"
      "vmovdqu64 192(%0), %%zmm3\n\t"
      "vmovdqu64 256(%0), %%zmm4\n\t"
      "vmovdqu64 320(%0), %%zmm5\n\t"
      "vmovdqu64 384(%0), %%zmm6\n\t"
      "vmovdqu64 448(%0), %%zmm7\n\t"
      "add $512, %0\n\tdec %1\n\tjnz 1b\n\tvzeroupper"
      : "+r"(data), "+r"(turns)
      :
      : "cc", "memory", KVASIR_VECTOR_REGISTERS);
}

// All rows of all tiles hold the operand. Four accumulators, as kernels have.
void run_tdpbf16ps(uint64_t turns, const std::byte* operand) {
  struct alignas(64) {
    uint8_t palette = 1;
    uint8_t reserved[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16};
  } config;
  asm volatile(
      "ldtilecfg %2\n\t"
      "tileloadd (%1,%3,1), %%tmm4\n\t"
      "tileloadd (%1,%3,1), %%tmm5\n\t"
      "1:\n\t"
      "tdpbf16ps %%tmm5, %%tmm4, %%tmm0\n\t"
      "tdpbf16ps %%tmm5, %%tmm4, %%tmm1\n\t"
      "tdpbf16ps %%tmm5, %%tmm4, %%tmm2\n\t"
      "tdpbf16ps %%tmm5, %%tmm4, %%tmm3\n\t"
      "dec %0\n\tjnz 1b\n\ttilerelease"
      : "+r"(turns)
      : "r"(operand), "m"(config), "r"(uint64_t{0})
      : "cc", "memory");
}

constexpr std::array kDots{
    DotInstruction{DotKind::kBF16, kernels::Isa::kAmx, "tdpbf16ps", 4 * 16 * 16 * 32,
                   run_tdpbf16ps},
    DotInstruction{DotKind::kInt8, kernels::Isa::kAvx512, "vpdpbusd zmm", 12 * 64, run_vpdpbusd},
    DotInstruction{DotKind::kBF16, kernels::Isa::kAvx512, "vdpbf16ps zmm", 12 * 32, run_vdpbf16ps},
    DotInstruction{DotKind::kF32, kernels::Isa::kAvx512, "vfmadd231ps zmm", 12 * 16,
                   run_vfmadd_zmm},
    DotInstruction{DotKind::kInt8, kernels::Isa::kAvxVnni, "vpdpbusd ymm", 12 * 32,
                   run_vpdpbusd_ymm},
    DotInstruction{DotKind::kInt8, kernels::Isa::kAvx2, "vpmaddubsw+vpmaddwd+vpaddd ymm", 12 * 32,
                   run_vpmaddubsw},
    DotInstruction{DotKind::kF32, kernels::Isa::kAvx2, "vfmadd231ps ymm", 12 * 8, run_vfmadd_ymm},
};

#else

constexpr std::array<DotInstruction, 0> kDots{};

#endif

// What an instruction set is made of that adds one instruction to another one.
kernels::Isa family_of(kernels::Isa isa) {
  switch (isa) {
    case kernels::Isa::kAvxVnni:
      return kernels::Isa::kAvx2;
    case kernels::Isa::kAvx512Bf16:
    case kernels::Isa::kAmx:
      return kernels::Isa::kAvx512;
    default:
      return isa;
  }
}

bool has_bf16_dot() {
#if defined(__x86_64__)
  return __builtin_cpu_supports("avx512bf16") != 0;
#else
  return false;
#endif
}

const DotInstruction* dot_of(kernels::Isa isa, DotKind kind) {
  const auto found = std::ranges::find_if(
      kDots, [&](const DotInstruction& dot) { return dot.isa == isa && dot.kind == kind; });
  return found == kDots.end() ? nullptr : &*found;
}

// Loads [data, data + 512 * turns) once, in order.
void read_forward(kernels::Isa isa, const std::byte* data, size_t turns) {
#if defined(__x86_64__)
  if (family_of(isa) == kernels::Isa::kAvx512) {
    read_zmm(data, turns);
    return;
  }
#endif
  static_cast<void>(isa);
  std::array<uint64_t, 8> sum{};
  for (size_t i = 0; i < turns * (kReadTurnBytes / 64); ++i) {
    std::array<uint64_t, 8> line;
    std::memcpy(line.data(), data + i * 64, 64);
    for (size_t lane = 0; lane < 8; ++lane) sum[lane] ^= line[lane];
  }
  // The compiler must believe that somebody wants the sums.
  asm volatile("" : : "r"(sum.data()) : "memory");
}

}  // namespace

const DotInstruction* find_dot(kernels::Isa isa, DotKind kind) {
  if (kernels::find_kernels(isa) == nullptr) return nullptr;
  if (kind == DotKind::kBF16 && isa != kernels::Isa::kAmx && !has_bf16_dot()) return nullptr;
  const DotInstruction* own = dot_of(isa, kind);
  return own != nullptr ? own : dot_of(family_of(isa), kind);
}

std::string_view dot_kind_name(DotKind kind) {
  return kind == DotKind::kInt8 ? "int8" : kind == DotKind::kBF16 ? "bf16" : "f32";
}

base::Result<MachineLimits> MachineLimits::create(base::ThreadPool& pool, kernels::Isa isa) {
  ASSIGN_OR_RETURN(base::AlignedBuffer memory, base::AlignedBuffer::create(kMemoryBytes));
  return MachineLimits(pool, isa, std::move(memory));
}

void MachineLimits::fill(std::span<const std::byte> pattern) {
  CHECK(!pattern.empty());
  const size_t copies = (memory_.size_bytes() + pattern.size() - 1) / pattern.size();
  pool_->for_ranges(copies, [&](size_t, base::Range range) {
    for (size_t i = range.begin; i < range.end; ++i) {
      const size_t offset = i * pattern.size();
      std::memcpy(memory_.data() + offset, pattern.data(),
                  std::min(pattern.size(), memory_.size_bytes() - offset));
    }
  });
}

// Seconds that the first `threads` threads need for work(0) .. work(pieces - 1).
template <typename Work>
double MachineLimits::run_pieces(size_t threads, size_t pieces, const Work& work) {
  CHECK(threads <= pool_->threads());
  std::atomic<size_t> next_piece{0};
  const SteadyTime start = start_stopwatch();
  pool_->run([&](size_t index) {
    if (index >= threads) return;
    for (size_t i = next_piece.fetch_add(1); i < pieces; i = next_piece.fetch_add(1)) work(i);
  });
  return seconds_since(start);
}

std::span<std::byte> MachineLimits::next(size_t size_bytes, size_t alignment) {
  size_t begin = (next_ + alignment - 1) / alignment * alignment;
  if (begin + size_bytes > memory_.size_bytes()) begin = 0;
  next_ = begin + size_bytes;
  return memory_.as<std::byte>(begin, size_bytes);
}

double MachineLimits::read_gb_s(size_t threads) {
  const std::span<const std::byte> bytes = next(kReadBytes, kReadTurnBytes);
  const double seconds = run_pieces(threads, kReadBytes / kReadPieceBytes, [&](size_t piece) {
    read_forward(isa_, &bytes[piece * kReadPieceBytes], kReadPieceBytes / kReadTurnBytes);
  });
  return static_cast<double>(kReadBytes) / seconds / 1e9;
}

double MachineLimits::dot_gmac_s(const DotInstruction& dot, size_t threads) {
  const auto* operand = reinterpret_cast<const std::byte*>(&kOperand);
  const double seconds =
      run_pieces(threads, threads * kDotPieces, [&](size_t) { dot.run(kDotPieceTurns, operand); });
  const uint64_t macs = threads * kDotPieces * kDotPieceTurns * dot.turn_macs;
  return static_cast<double>(macs) / seconds / 1e9;
}

std::optional<double> MachineLimits::clock_ghz() {
#if defined(__x86_64__)
  // A multiplication waits three cycles for the one before it. Additions would not do: newer
  // processors resolve chains of them while renaming registers.
  constexpr uint64_t kTurns = 200'000;
  constexpr uint64_t kTurnCycles = 3 * 4;
  uint64_t turns = kTurns;
  uint64_t value = 3;
  const SteadyTime start = start_stopwatch();
  asm volatile(
      "1:\n\t"
      "imul %1, %1\n\timul %1, %1\n\timul %1, %1\n\timul %1, %1\n\t"
      "dec %0\n\tjnz 1b"
      : "+r"(turns), "+r"(value)
      :
      : "cc");
  return static_cast<double>(kTurns * kTurnCycles) / seconds_since(start) / 1e9;
#else
  return std::nullopt;
#endif
}

double MachineLimits::fork_join_ns() {
  constexpr int kRounds = 1000;
  const SteadyTime start = start_stopwatch();
  for (int i = 0; i < kRounds; ++i) pool_->run([](size_t) {});
  return seconds_since(start) * 1e9 / kRounds;
}

}  // namespace kvasir::bench
