#include "sim/soak_setup.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace kvasir::sim {
namespace {

constexpr std::array<std::string_view, 6> kFamilyNames = {
    "any", "one_group", "full_and_window", "window_only", "cross", "pressure"};
constexpr uint64_t kSlabUnitBytes = 4096;

// Collides all the time.
kv::Digest eight_bit_digest(const kv::Digest& previous, std::span<const TokenId> words) {
  return {kv::sha256_chain(previous, words)[0]};
}

kv::GroupShape full_group(uint32_t layers) {
  return {.layers = layers, .kv_heads = 1, .head_dim = 16, .dtype = quant::KvDtype::kF32};
}

kv::GroupShape window_group(uint32_t layers, uint32_t window_tokens) {
  kv::GroupShape group = full_group(layers);
  group.kind = kv::GroupKind::kSlidingWindow;
  group.window_tokens = window_tokens;
  return group;
}

kv::GroupShape cross_group() {
  kv::GroupShape group = full_group(1);
  group.kind = kv::GroupKind::kCross;
  return group;
}

std::vector<kv::GroupShape> random_groups(SoakRandom& random, SoakFamily family) {
  uint32_t kind = random.below(10);  // 0 - 3: one group
  if (family == SoakFamily::kOneGroup) kind = 0;
  if (family == SoakFamily::kFullAndWindow) kind = 4;
  if (family == SoakFamily::kWindowOnly) kind = 7;
  if (family == SoakFamily::kCross) kind = 8 + random.below(2);
  // The fake model reads the token before its own: no window is shorter than two.
  const uint32_t window = random.percent(30) ? random.between(2, 8) : random.between(9, 60);
  if (kind < 4) return {full_group(random.between(1, 2))};
  if (kind < 6) return {full_group(1), window_group(random.between(1, 3), window)};
  if (kind == 6) return {window_group(1, window), full_group(1)};
  if (kind == 7) return {window_group(1, window)};
  if (kind == 8) return {full_group(1), cross_group()};
  return {full_group(1), window_group(1, window), cross_group()};
}

kv::CacheMode random_mode(SoakRandom& random, const SoakSetup& setup) {
  const uint32_t roll = random.below(40);
  if (roll == 0) return kv::CacheMode::kNone;
  const bool plain =
      setup.cache.groups.size() == 1 && setup.cache.groups[0].kind == kv::GroupKind::kFull;
  return plain && roll < 3 ? kv::CacheMode::kContiguous : kv::CacheMode::kPaged;
}

uint64_t budget_bytes(const kv::CacheOptions& cache, uint32_t blocks) {
  uint64_t bytes = 0;
  for (const kv::GroupShape& group : cache.groups) {
    const uint64_t block = kv::BlockLayout(group, cache.block_tokens).block_bytes();
    bytes += block * blocks;
  }
  // Whole slabs: for these shapes they have 4, 8 or 12 KiB.
  return cache.groups.size() == 1 ? bytes : base::align_up(bytes, uint64_t{6} * kSlabUnitBytes);
}

void draw_cache(SoakRandom& random, SoakFamily family, SoakSetup& setup) {
  kv::CacheOptions& cache = setup.cache;
  const bool pressure = family == SoakFamily::kPressure;
  cache.groups = random_groups(random, family);
  cache.mode = pressure ? kv::CacheMode::kPaged : random_mode(random, setup);
  cache.block_tokens = random.percent(70) ? 16 : 32;
  uint32_t blocks = pressure || random.percent(40) ? random.between(8, 32) : random.between(16, 64);
  // Runs of a power of two must fit.
  if (cache.mode == kv::CacheMode::kContiguous) blocks = std::bit_ceil(blocks);
  cache.slab_unit_bytes = kSlabUnitBytes;
  cache.budget_bytes = budget_bytes(cache, blocks);
  setup.tokens_max = std::min(random.between(80, 220), blocks * cache.block_tokens);
  cache.sequence_tokens_max = setup.tokens_max;
  if (cache.groups.back().kind == kv::GroupKind::kCross) {
    cache.encoder_tokens_max = random.between(1, 40);
    cache.encoder_inputs_max = random.between(1, 8);
  }
  cache.publish = random.percent(85) ? kv::Publish::kWhenSealed : kv::Publish::kWhenFinished;
  cache.contiguous_run =
      random.percent(50) ? kv::ContiguousRun::kLongest : kv::ContiguousRun::kPowerOfTwo;
  cache.pinned_percent_max = random.below(4) * 20;
  setup.short_digests = random.percent(40);
  if (setup.short_digests) cache.digest = eight_bit_digest;
  cache.verify = random.percent(80);
}

void draw_limits(SoakRandom& random, SoakFamily family, SoakSetup& setup) {
  constexpr std::array<uint32_t, 6> kSequences = {1, 2, 4, 8, 16, 64};
  const bool pressure = family == SoakFamily::kPressure;
  setup.limits.sequences_max = pressure ? random.between(8, 64) : kSequences[random.below(6)];
  setup.cache.sequences_max = setup.limits.sequences_max;
  setup.clients = pressure ? 64 : random.between(1, 2 * setup.limits.sequences_max);
  setup.limits.requests_max = setup.limits.sequences_max + setup.clients + random.below(64);
  setup.limits.prefill_chunk = random.percent(30) ? random.between(1, 15) : random.between(16, 256);
  setup.limits.logit_rows_max = setup.limits.sequences_max + random.below(32);
}

}  // namespace

std::optional<SoakFamily> parse_soak_family(std::string_view name) {
  const auto at = std::ranges::find(kFamilyNames, name);
  if (at == kFamilyNames.end()) return std::nullopt;
  return static_cast<SoakFamily>(at - kFamilyNames.begin());
}

std::string_view soak_family_name(SoakFamily family) {
  return kFamilyNames[static_cast<size_t>(family)];
}

SoakSetup random_setup(uint64_t seed, SoakFamily family) {
  SoakRandom random(seed);
  SoakSetup setup{.seed = seed};
  draw_cache(random, family, setup);
  draw_limits(random, family, setup);
  constexpr std::array<uint32_t, 3> kVocabs = {5, 17, 61};
  setup.vocab = kVocabs[random.below(3)];
  setup.alphabet = random.percent(40) ? std::min(setup.vocab, random.between(1, 3)) : setup.vocab;
  setup.domains = random.percent(40) ? random.between(2, 3) : 1;
  setup.answer_max = random.percent(50) ? random.between(1, 12) : random.between(10, 100);
  if (family == SoakFamily::kPressure) setup.answer_max = random.between(40, 120);
  setup.cancel_permille = random.percent(70) ? random.below(40) : 0;
  setup.pins_percent = random.percent(50) ? random.below(30) : 0;
  setup.drain_permille = random.below(6);
  setup.pause_permille = random.percent(40) ? random.below(60) : 0;
  if (random.percent(40)) setup.limits.step_target_us = random.between(1, 4000);
  if (random.percent(50)) {
    for (uint32_t i = random.between(2, 4); i > 0; --i) {
      setup.limits.tenant_weights.push_back(0.5 * random.between(1, 6));
    }
  }
  return setup;
}

std::string describe(const SoakSetup& setup) {
  std::string groups;
  for (const kv::GroupShape& group : setup.cache.groups) {
    if (group.kind == kv::GroupKind::kFull) groups += fmt::format(" full({})", group.layers);
    if (group.kind == kv::GroupKind::kCross) {
      groups += fmt::format(" cross(<= {} tokens, {} inputs)", setup.cache.encoder_tokens_max,
                            setup.cache.encoder_inputs_max);
    }
    if (group.kind != kv::GroupKind::kSlidingWindow) continue;
    groups += fmt::format(" window({}, W {})", group.layers, group.window_tokens);
  }
  return fmt::format(
      "seed {}: {}{}, {} KiB in blocks of {}, digests {}, publish {}, pins {} %, verify {}; "
      "{} of {} requests run, chunk {}, {} logit rows; {} clients, {} domains, vocab {}/{}, "
      "<= {} tokens, answers <= {}, cancels {}, pauses {}, pinned {} %, drains {}, {} tenants, "
      "step target {} us",
      setup.seed, kv::cache_mode_name(setup.cache.mode), groups, setup.cache.budget_bytes / 1024,
      setup.cache.block_tokens, setup.short_digests ? "8 bit" : "real",
      setup.cache.publish == kv::Publish::kWhenSealed ? "when sealed" : "when finished",
      setup.cache.pinned_percent_max, setup.cache.verify, setup.limits.sequences_max,
      setup.limits.requests_max, setup.limits.prefill_chunk, setup.limits.logit_rows_max,
      setup.clients, setup.domains, setup.alphabet, setup.vocab, setup.tokens_max, setup.answer_max,
      setup.cancel_permille, setup.pause_permille, setup.pins_percent, setup.drain_permille,
      setup.limits.tenant_weights.size(), setup.limits.step_target_us);
}

}  // namespace kvasir::sim
