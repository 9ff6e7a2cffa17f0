// What this machine can do at most: the yardsticks of `bench kernels`. Every figure is one sample
// of a few milliseconds, so that it can be taken right before and right after what it is compared
// with; callers repeat it.
//
// Thread: one caller, which is in base::ScopedFpEnv. Allocates: create() only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "base/aligned_buffer.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"

namespace kvasir::bench {

enum class DotKind : uint8_t { kInt8, kBF16, kF32 };

// The instructions that multiply and accumulate fastest in an instruction set.
struct DotInstruction {
  DotKind kind = DotKind::kInt8;
  kernels::Isa isa = kernels::Isa::kReference;
  std::string_view name;
  uint32_t turn_macs = 0;  // multiply-accumulates of one turn
  void (*run)(uint64_t turns, const std::byte* operand) = nullptr;
};
// nullptr: the processor, or the instruction set, has none that is known here.
const DotInstruction* find_dot(kernels::Isa isa, DotKind kind);
std::string_view dot_kind_name(DotKind kind);  // "int8", "bf16", "f32"

class MachineLimits {
 public:
  // Reads come from memory: before anything is handed out again,
  // about this many bytes of others are.
  static constexpr size_t kMemoryBytes = size_t{512} << 20;
  static constexpr size_t kReadBytes = size_t{64} << 20;  // of one sample

  // Error: the system refuses the memory.
  static base::Result<MachineLimits> create(base::ThreadPool& pool, kernels::Isa isa);

  // Repeats `pattern` through the whole memory. Requires: not empty.
  void fill(std::span<const std::byte> pattern);
  // The next bytes of the memory, round and round, from a multiple of `alignment`.
  // Requires: both together fit.
  std::span<std::byte> next(size_t size_bytes, size_t alignment);

  // Of the first `threads` threads of the pool, which read strictly forward, a megabyte at a time.
  double read_gb_s(size_t threads);
  // Billions of multiply-accumulates per second of `threads` threads together.
  double dot_gmac_s(const DotInstruction& dot, size_t threads);
  // Of the calling thread, while it computes; nullopt: not known how to measure it here.
  static std::optional<double> clock_ghz();
  // One fork and join of the whole pool around nothing.
  double fork_join_ns();

 private:
  MachineLimits(base::ThreadPool& pool, kernels::Isa isa, base::AlignedBuffer memory)
      : pool_(&pool), isa_(isa), memory_(std::move(memory)) {}

  template <typename Work>
  double run_pieces(size_t threads, size_t pieces, const Work& work);

  base::ThreadPool* pool_;
  kernels::Isa isa_;
  base::AlignedBuffer memory_;
  size_t next_ = 0;  // offset of the bytes that were not touched for the longest time
};

}  // namespace kvasir::bench
