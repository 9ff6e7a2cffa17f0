#include "base/fp_env.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace kvasir::base {
namespace {

#if defined(__x86_64__)
// MXCSR: FTZ (bit 15), DAZ (bit 6), all exceptions masked (bits 7-12), round to nearest.
constexpr uint32_t kMxcsr = 0x8000u | 0x1f80u | 0x0040u;
uint64_t read_control() {
  return _mm_getcsr();
}
void write_control(uint64_t value) {
  _mm_setcsr(static_cast<uint32_t>(value));
}
constexpr uint64_t kControl = kMxcsr;
#elif defined(__aarch64__)
constexpr uint64_t kControl = uint64_t{1} << 24;  // FPCR.FZ; round to nearest, no traps
uint64_t read_control() {
  uint64_t value = 0;
  asm volatile("mrs %0, fpcr" : "=r"(value));
  return value;
}
void write_control(uint64_t value) {
  asm volatile("msr fpcr, %0" : : "r"(value));
}
#else
#error "fp_env: name the control register of this processor"
#endif

}  // namespace

ScopedFpEnv::ScopedFpEnv() : saved_(read_control()) {
  write_control(kControl);
}
ScopedFpEnv::~ScopedFpEnv() {
  write_control(saved_);
}

}  // namespace kvasir::base
