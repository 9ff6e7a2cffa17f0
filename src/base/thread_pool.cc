#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <system_error>

#include "base/check.h"
#include "base/fp_env.h"

namespace kvasir::base {
namespace {

// A pause takes 40 to 140 cycles, so this is 10 to 50 microseconds: longer than the gap between two
// stages of a layer, shorter than what the scheduler would give to somebody else.
constexpr int kSpinsBeforePark = 700;

void pause_briefly() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns once value != old.
void wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpinsBeforePark; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    pause_briefly();
  }
  value.wait(old, std::memory_order_acquire);
}

// The processors that this process may use.
std::vector<size_t> processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return {};
  std::vector<size_t> found;
  for (size_t i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) found.push_back(i);
  }
  return found;
}

// A wish: where the system says no, the thread stays where it is.
void bind(std::thread& thread, size_t processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  static_cast<void>(pthread_setaffinity_np(thread.native_handle(), sizeof(set), &set));
}

}  // namespace

ThreadPool::ThreadPool(size_t threads, Placement placement) {
  CHECK(threads >= 1);
  workers_.reserve(threads - 1);
  try {
    for (size_t index = 1; index < threads; ++index) {
      workers_.emplace_back([this, index] { worker_loop(index); });
    }
  } catch (const std::system_error&) {
    // The system gives no more threads; threads() tells how many there are.
  }
  if (placement == Placement::kAnywhere) return;
  const std::vector<size_t> places = processors();
  if (places.size() < this->threads()) return;
  for (size_t i = 0; i < workers_.size(); ++i) bind(workers_[i], places[i + 1]);
}

ThreadPool::~ThreadPool() {
  stopping_ = true;
  generation_.fetch_add(1, std::memory_order_release);
  generation_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_erased(Entry entry, const void* context) {
  entry_ = entry;
  context_ = context;
  pending_.store(static_cast<uint32_t>(workers_.size()), std::memory_order_relaxed);
  if (!workers_.empty()) {
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
  }
  entry(context, 0);
  for (uint32_t left = pending_.load(std::memory_order_acquire); left != 0;
       left = pending_.load(std::memory_order_acquire)) {
    wait_for_change(pending_, left);
  }
}

void ThreadPool::worker_loop(size_t index) {
  const ScopedFpEnv fp_env;
  uint32_t seen = 0;
  while (true) {
    wait_for_change(generation_, seen);
    ++seen;
    if (stopping_) return;
    entry_(context_, index);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_all();
  }
}

}  // namespace kvasir::base
