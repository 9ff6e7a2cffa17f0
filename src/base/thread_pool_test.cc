#include "base/thread_pool.h"

#include <gtest/gtest.h>

#include <sched.h>

#include <chrono>
#include <thread>

#include "base/fp_env.h"

namespace kvasir::base {
namespace {

TEST(ThreadPool, run_calls_every_index_exactly_once) {
  for (const size_t threads : {1U, 2U, 3U, 8U}) {
    ThreadPool pool(threads);
    ASSERT_EQ(pool.threads(), threads);
    std::vector<std::atomic<int>> calls(threads);
    pool.run([&](size_t index) { calls[index].fetch_add(1); });
    for (size_t i = 0; i < threads; ++i) EXPECT_EQ(calls[i].load(), 1) << i << " of " << threads;
  }
}

TEST(ThreadPool, index_zero_is_the_caller) {
  ThreadPool pool(2);
  std::vector<std::thread::id> ids(2);
  pool.run([&](size_t index) { ids[index] = std::this_thread::get_id(); });
  EXPECT_EQ(ids[0], std::this_thread::get_id());
  EXPECT_NE(ids[1], ids[0]);
}

TEST(ThreadPool, workers_stay_on_a_processor_each_where_asked_to) {
  const auto processors_of_worker = [](Placement placement) {
    ThreadPool pool(2, placement);
    int count = 0;
    pool.run([&](size_t index) {
      cpu_set_t set;
      CPU_ZERO(&set);
      if (index == 1 && sched_getaffinity(0, sizeof(set), &set) == 0) count = CPU_COUNT(&set);
    });
    return count;
  };
  const int all = processors_of_worker(Placement::kAnywhere);
  EXPECT_EQ(processors_of_worker(Placement::kOneProcessorEach), all >= 2 ? 1 : all);
}

// Plain ints: run() must make every thread's writes visible to the caller and to the next run.
TEST(ThreadPool, many_runs_in_a_row_lose_nothing) {
  constexpr int kRuns = 2000;
  ThreadPool pool(4);
  std::vector<int> counts(4 * 64);
  for (int run = 0; run < kRuns; ++run) {
    pool.run([&](size_t index) {
      ASSERT_EQ(counts[(index + 1) % 4 * 64 + 1], run);  // what a neighbour wrote last time
      ++counts[index * 64];
    });
    for (size_t i = 0; i < 4; ++i) counts[i * 64 + 1] = run + 1;
  }
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(counts[i * 64], kRuns);
}

TEST(ThreadPool, chunks_cover_every_item_exactly_once) {
  for (const size_t threads : {1U, 2U, 5U}) {
    ThreadPool pool(threads);
    for (const size_t count : {0U, 1U, 3U, 8U, 1000U}) {
      for (const size_t chunk : {1U, 3U, 8U, 2000U}) {
        std::vector<std::atomic<int>> taken(count);
        pool.for_chunks(count, chunk, [&](size_t, Range range) {
          EXPECT_LT(range.begin, range.end);
          EXPECT_LE(range.end - range.begin, chunk);
          for (size_t i = range.begin; i < range.end; ++i) taken[i].fetch_add(1);
        });
        for (const std::atomic<int>& times : taken) ASSERT_EQ(times.load(), 1);
      }
    }
  }
}

TEST(ThreadPool, parked_workers_wake_up) {
  ThreadPool pool(3);
  for (int run = 0; run < 5; ++run) {
    // Longer than the spin, so that the workers park.
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    std::atomic<int> calls = 0;
    pool.run([&](size_t) { calls.fetch_add(1); });
    ASSERT_EQ(calls.load(), 3);
  }
}

TEST(ThreadPool, ranges_cover_every_item_once_in_even_shares) {
  for (const size_t threads : {1U, 3U, 4U}) {
    ThreadPool pool(threads);
    for (const size_t count : {0U, 1U, 2U, 3U, 7U, 100U}) {
      std::vector<std::atomic<int>> touched(count);
      std::vector<std::atomic<size_t>> sizes(threads);
      pool.for_ranges(count, [&](size_t index, Range range) {
        ASSERT_LT(range.begin, range.end);
        sizes[index] = range.end - range.begin;
        for (size_t i = range.begin; i < range.end; ++i) touched[i].fetch_add(1);
      });
      for (const auto& item : touched) ASSERT_EQ(item.load(), 1);
      for (const auto& size : sizes) {
        EXPECT_GE(size.load(), count / threads);
        EXPECT_LE(size.load(), (count + threads - 1) / threads);
      }
    }
  }
}

TEST(ThreadPool, workers_flush_denormals) {
  ThreadPool pool(2);
  const ScopedFpEnv fp_env;
  std::vector<float> halves(2, 1.0F);
  pool.run([&](size_t index) {
    volatile float smallest_normal = 0x1p-126F;
    halves[index] = smallest_normal * 0.5F;
  });
  EXPECT_EQ(halves[0], 0.0F);
  EXPECT_EQ(halves[1], 0.0F);
}

}  // namespace
}  // namespace kvasir::base
