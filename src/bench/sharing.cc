// sharing: how much memory several answers to one prompt have in common: samples share the prompt,
// beams also what they have generated together.
//
// The prompts are written by the model itself: after random tokens every continuation is as likely
// as any other, and beams would have nothing in common. The requests arrive at once in a cache that
// holds them all; one engine for each case, so that the peak is its own.
#include <fmt/format.h>

#include <algorithm>

#include "bench/driver.h"
#include "bench/workloads.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kRequests = 16;
constexpr uint32_t kWidths[] = {2, 4, 6};

struct Lengths {
  double prompt;
  double output;
};
constexpr Lengths kLengths[] = {{19.0, 58.0}, {161.0, 338.0}};

enum Stream : uint64_t { kPrompts = 10, kOutputs };

struct SharingCase {
  bool beams = false;
  uint32_t width = 0;
  Lengths lengths{};
};

// Each prompt continues one random token.
base::Result<std::vector<Answer>> write_prompts(api::Llm& llm, const BenchHooks& hooks,
                                                const SharingCase& c, uint32_t count) {
  std::vector<Arrival> all(count);
  for (uint32_t i = 0; i < count; ++i) {
    engine::Request& request = all[i].request;
    request.tokens = prompt_tokens(llm, i, 1);
    request.max_tokens = draw_length(c.lengths.prompt, kPrompts, i);
    request.sampling = {.temperature = 0.7F, .top_p = 0.95F, .seed = i};
  }
  return drive(llm, std::move(all), hooks);
}

std::vector<Arrival> arrivals(const SharingCase& c, const std::vector<Answer>& prompts) {
  std::vector<Arrival> all(prompts.size());
  for (uint32_t i = 0; i < all.size(); ++i) {
    engine::Request& request = all[i].request;
    request.tokens = prompts[i].tokens;
    request.max_tokens = draw_length(c.lengths.output, kOutputs, i);
    if (c.beams) {
      request.beams = c.width;
    } else {
      request.choices = c.width;
      request.sampling = {.temperature = 1.0F, .seed = i};
    }
  }
  return all;
}

// Slots that all answers take when nothing is shared.
uint64_t slots_unshared(const SharingCase& c, uint32_t count, uint32_t block_tokens) {
  uint64_t slots = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const uint64_t tokens = uint64_t{draw_length(c.lengths.prompt, kPrompts, i)} +
                            draw_length(c.lengths.output, kOutputs, i);
    slots += (base::align_up(tokens, block_tokens) + 2 * block_tokens) * c.width;
  }
  return slots;
}

base::Status run_case(const BenchOptions& options, const BenchHooks& hooks, const SharingCase& c) {
  const uint32_t count = or_default(options.sequences, kRequests);
  api::EngineOptions engine = options.engine;
  if (!engine.context) engine.context = 2048;
  engine.sequences_max = std::max(engine.sequences_max, count * c.width);
  if (!engine.kv_memory_bytes) engine.kv_tokens = slots_unshared(c, count, engine.block_tokens);
  const std::string name = fmt::format("{}{}@{:.0f}/{:.0f}", c.beams ? "beam" : "parallel", c.width,
                                       c.lengths.prompt, c.lengths.output);
  show_progress(hooks, "sharing " + name);
  ASSIGN_OR_RETURN(const auto llm, api::Llm::load(engine, {}));
  ASSIGN_OR_RETURN(const auto prompts, write_prompts(*llm, hooks, c, count));
  ASSIGN_OR_RETURN(const auto answers, drive(*llm, arrivals(c, prompts), hooks));
  CHECK(answers.size() == count);
  const kv::CacheStats cache = llm->stats().cache;
  boost::json::object line = result_line("sharing", name, *llm);
  line["requests"] = count;
  line["width"] = c.width;
  line["saved_pct"] = 100.0 * cache.sharing_saved_at_peak;
  line["blocks_logical_peak"] = cache.blocks_logical_peak;
  line["blocks_copied"] = cache.blocks_copied;
  hooks.on_line(line);
  return {};
}

}  // namespace

base::Status bench_sharing(const BenchOptions& options, const BenchHooks& hooks) {
  for (const bool beams : {false, true}) {
    for (const Lengths& lengths : kLengths) {
      for (const uint32_t width : kWidths) {
        RETURN_IF_ERROR(
            run_case(options, hooks, {.beams = beams, .width = width, .lengths = lengths}));
      }
    }
  }
  return {};
}

}  // namespace kvasir::bench
