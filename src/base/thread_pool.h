// A fixed team of compute threads. run() is fork-join: every thread, the caller included, executes
// the task once and run() returns when all have. Waiting threads spin briefly, then park, so the
// pool neither burns idle cores nor starves when the machine is oversubscribed.
//
// Thread: one caller at a time. Allocates: constructor only.
// Workers live in the floating-point environment of base/fp_env.h; the caller enters it itself.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace kvasir::base {

// Half-open range of work items.
struct Range {
  size_t begin = 0;
  size_t end = 0;
};

// The share of [0, count) that thread `index` of `threads` takes: contiguous, sizes differ by <= 1.
constexpr Range share_of(size_t count, size_t index, size_t threads) {
  return {count * index / threads, count * (index + 1) / threads};
}

enum class Placement : uint8_t {
  kAnywhere,         // wherever the system puts a thread
  kOneProcessorEach  // worker i stays on the i-th processor that the process may use
};

class ThreadPool {
 public:
  // Starts `threads` threads, the caller counted as one, or as many as the system gives. The caller
  // is never bound to a processor, and a worker only if there is one for each thread.
  // Requires: threads >= 1.
  explicit ThreadPool(size_t threads, Placement placement = Placement::kAnywhere);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  size_t threads() const { return workers_.size() + 1; }

  // Calls task(thread_index) once on every thread; thread_index in [0, threads()).
  template <typename Task>
  void run(const Task& task) {
    run_erased(
        [](const void* context, size_t index) { (*static_cast<const Task*>(context))(index); },
        &task);
  }

  // Hands out [0, count) in ranges of at most `chunk` items to whoever is free, so that threads end
  // together even where one was held up. Calls task(thread_index, Range) any number of times on
  // each thread. Requires: chunk >= 1.
  template <typename Task>
  void for_chunks(size_t count, size_t chunk, const Task& task) {
    std::atomic<size_t> next{0};
    run([&](size_t index) {
      for (size_t begin = next.fetch_add(chunk); begin < count; begin = next.fetch_add(chunk)) {
        task(index, Range{begin, begin + chunk < count ? begin + chunk : count});
      }
    });
  }

  // Splits [0, count) evenly; calls task(thread_index, Range) where the range is not empty.
  template <typename Task>
  void for_ranges(size_t count, const Task& task) {
    run([&](size_t index) {
      const Range range = share_of(count, index, threads());
      if (range.begin < range.end) task(index, range);
    });
  }

 private:
  using Entry = void (*)(const void* context, size_t thread_index);

  void run_erased(Entry entry, const void* context);
  void worker_loop(size_t index);

  // Written by the caller before generation_ is published, read by workers after they see it.
  Entry entry_ = nullptr;
  const void* context_ = nullptr;
  bool stopping_ = false;

  alignas(64) std::atomic<uint32_t> generation_{0};  // one more for each run()
  alignas(64) std::atomic<uint32_t> pending_{0};     // workers still inside the current run()
  std::vector<std::thread> workers_;                 // last: they use everything above
};

}  // namespace kvasir::base
