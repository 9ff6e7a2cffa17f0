// What one soak runs on: an engine's options and what its clients are like, all drawn from a seed.
//
// Thread: value types.
#pragma once

#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "kv/cache.h"
#include "sched/scheduler.h"

namespace kvasir::sim {

// Draws that are the same with every standard library.
class SoakRandom {
 public:
  explicit SoakRandom(uint64_t seed) : engine_(seed) {}

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(engine_() % n); }
  uint32_t between(uint32_t first, uint32_t last) { return first + below(last - first + 1); }
  bool percent(uint32_t chance) { return below(100) < chance; }
  bool permille(uint32_t chance) { return below(1000) < chance; }

 private:
  std::mt19937_64 engine_;
};

// What the draws are narrowed to.
enum class SoakFamily : uint8_t {
  kAny,
  kOneGroup,
  kFullAndWindow,
  kWindowOnly,
  kCross,     // an encoder
  kPressure,  // few blocks, many clients: eviction and preemption all the time
};
std::optional<SoakFamily> parse_soak_family(std::string_view name);
std::string_view soak_family_name(SoakFamily family);

struct SoakSetup {
  uint64_t seed = 0;
  kv::CacheOptions cache;
  sched::SchedulerLimits limits;
  bool short_digests = false;
  uint32_t vocab = 0;
  uint32_t alphabet = 0;  // token ids in prompts are below it: few make many shared prefixes
  uint32_t clients = 0;   // requests in the engine at a time
  uint32_t domains = 1;
  uint32_t tokens_max = 0;  // of prompt and answer
  uint32_t answer_max = 0;
  uint32_t cancel_permille = 0;  // of steps
  uint32_t pause_permille = 0;   // of steps
  uint32_t pins_percent = 0;     // of requests
  uint32_t drain_permille = 0;   // of steps: lets everything end before going on
};

SoakSetup random_setup(uint64_t seed, SoakFamily family);
// One line, with everything above.
std::string describe(const SoakSetup& setup);

}  // namespace kvasir::sim
