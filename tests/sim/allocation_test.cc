// No step allocates: not the first of a request, not one that admits, finishes or cancels. The
// hook counts every malloc of the thread that steps, whoever calls it.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>

#include "base/fp_env.h"
#include "golden/golden.h"

extern "C" {
void* __libc_malloc(size_t size);                      // NOLINT: glibc's own names
void* __libc_calloc(size_t count, size_t size);        // NOLINT
void* __libc_realloc(void* old, size_t size);          // NOLINT
void* __libc_memalign(size_t alignment, size_t size);  // NOLINT
}

namespace kvasir {
namespace {

std::atomic<bool> counting{false};
std::atomic<uint64_t> allocations{0};

void count() {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1);
}

}  // namespace
}  // namespace kvasir

extern "C" {
void* malloc(size_t size) {
  kvasir::count();
  return __libc_malloc(size);
}
void* calloc(size_t n, size_t size) {
  kvasir::count();
  return __libc_calloc(n, size);
}
void* realloc(void* old, size_t size) {
  kvasir::count();
  return __libc_realloc(old, size);
}
void* aligned_alloc(size_t alignment, size_t size) {
  kvasir::count();
  return __libc_memalign(alignment, size);
}
}

namespace kvasir {
namespace {

struct Counted {
  uint64_t steps = 0;
  uint64_t allocations = 0;
  uint64_t finished = 0;
};

// Steps until idle with the hook on; `cancel_after` ends one request in mid-flight.
Counted step_counted(engine::Engine& engine, std::optional<SequenceId> cancel, uint64_t after) {
  Counted result;
  allocations = 0;
  counting = true;
  while (!engine.idle()) {
    for (const engine::Event& event : engine.step()) {
      if (event.kind == engine::Event::Kind::kFinished) ++result.finished;
    }
    if (++result.steps == after && cancel) engine.cancel(*cancel);
  }
  counting = false;
  result.allocations = allocations;
  return result;
}

std::vector<SequenceId> submit_mixed_load(engine::Engine& engine, TokenId first) {
  std::vector<SequenceId> ids;
  for (uint32_t i = 0; i < 6; ++i) {
    engine::Request request{.tokens = std::vector<TokenId>(3 + i * 11, first + static_cast<int>(i)),
                            .max_tokens = 5 + i * 3,
                            .digest_logits = true};
    if (i % 2 == 1) {
      request.sampling = {.temperature = 1.0F,
                          .top_k = 40,
                          .top_p = 0.9F,
                          .min_p = 0.01F,
                          .repetition_penalty = 1.1F,
                          .presence_penalty = 0.2F};
      request.logprobs = true;
      request.top_logprobs = 5;
    }
    request.score_prompt = i == 4;
    EXPECT_TRUE(engine.check(request).has_value());
    ids.push_back(engine.submit(std::move(request)));
  }
  return ids;
}

TEST(Allocations, no_step_of_a_mixed_load_allocates_after_one_warm_up_request) {
  for (const char* mode : {"none", "contiguous", "paged"}) {
    const base::ScopedFpEnv fp_env;
    base::Result<api::EngineOptions> options =
        api::parse_options({.model = golden::path_of("tiny/llama-q4_1.gguf"),
                            .kv = mode,
                            .kv_memory = "16MiB",
                            .prefill_chunk = "16",
                            .max_sequences = 4});
    ASSERT_TRUE(options.has_value());
    options->requests_max = 16;
    const auto llm = api::Llm::load(*options, {});
    ASSERT_TRUE(llm.has_value());
    engine::Engine& engine = (*llm)->engine();

    submit_mixed_load(engine, 10);
    step_counted(engine, std::nullopt, 0);  // warm-up

    const std::vector<SequenceId> ids = submit_mixed_load(engine, 60);
    const Counted counted = step_counted(engine, ids[3], 9);
    EXPECT_EQ(counted.allocations, 0U) << mode;
    EXPECT_EQ(counted.finished, 5U) << mode;
    EXPECT_GT(counted.steps, 15U) << mode;
  }
}

// Prompts that begin alike, with choices, more than a small pool can hold at a time. The answers
// are long: sequences that were admitted must be preempted.
void submit_crowd(engine::Engine& engine, TokenId first) {
  for (uint32_t i = 0; i < 8; ++i) {
    engine::Request request{.tokens = std::vector<TokenId>(40, 7), .max_tokens = 40};
    request.tokens.resize(48, first + static_cast<TokenId>(i % 5));
    request.choices = 1 + i % 3;
    request.sampling = {.temperature = 1.0F, .seed = i};
    EXPECT_TRUE(engine.check(request).has_value());
    engine.submit(std::move(request));
  }
}

TEST(Allocations, no_step_that_hits_forks_seals_evicts_or_preempts_allocates) {
  const base::ScopedFpEnv fp_env;
  base::Result<api::EngineOptions> options =
      api::parse_options({.model = golden::path_of("tiny/llama-q4_1.gguf"),
                          .block_tokens = 16,
                          .prefill_chunk = "32",
                          .max_sequences = 8,
                          .context = 128});
  ASSERT_TRUE(options.has_value());
  options->requests_max = 32;
  options->kv_tokens = 18 * 16;
  const auto llm = api::Llm::load(*options, {});
  ASSERT_TRUE(llm.has_value());
  engine::Engine& engine = (*llm)->engine();

  submit_crowd(engine, 10);
  step_counted(engine, std::nullopt, 0);  // warm-up

  const engine::EngineStats before = engine.stats();
  submit_crowd(engine, 60);
  const Counted counted = step_counted(engine, std::nullopt, 0);
  const engine::EngineStats after = engine.stats();
  EXPECT_EQ(counted.allocations, 0U);
  EXPECT_EQ(counted.finished, 15U);
  EXPECT_GT(after.cache.tokens_hit, before.cache.tokens_hit);
  EXPECT_GT(after.cache.blocks_copied, before.cache.blocks_copied);
  EXPECT_GT(after.cache.groups[0].evicted, before.cache.groups[0].evicted);
  EXPECT_GT(after.cache.promises_kept, before.cache.promises_kept);
  EXPECT_GT(after.scheduler.preemptions, before.scheduler.preemptions);
}

TEST(Allocations, the_hook_sees_an_allocation) {
  allocations = 0;
  counting = true;
  const auto value = std::make_unique<std::vector<int>>(1000);
  counting = false;
  EXPECT_GE(allocations.load(), 2U);
  EXPECT_EQ(value->size(), 1000U);
}

}  // namespace
}  // namespace kvasir
