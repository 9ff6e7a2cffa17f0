#include "api/cache_json.h"

namespace kvasir::api {
namespace {

boost::json::object group_json(const kv::GroupStats& group) {
  const kv::BlockCounts& blocks = group.blocks;
  return {{"block_bytes", group.block_bytes},
          {"blocks_free", blocks.of(kv::BlockState::kFree)},
          {"blocks_filling", blocks.of(kv::BlockState::kFilling)},
          {"blocks_sealed", blocks.of(kv::BlockState::kSealed)},
          {"blocks_cached", blocks.of(kv::BlockState::kCached)},
          {"blocks_capacity", blocks.capacity()},
          {"blocks_evicted", group.evicted}};
}

}  // namespace

boost::json::object cache_json(const kv::CacheStats& stats) {
  boost::json::array groups;
  for (const kv::GroupStats& group : stats.groups) groups.push_back(group_json(group));
  boost::json::object missed;
  for (size_t i = 0; i < kv::kMissReasons; ++i) {
    missed[kv::miss_reason_name(static_cast<kv::MissReason>(i))] = stats.tokens_missed[i];
  }
  const auto allocated = static_cast<double>(stats.slots_allocated);
  const double waste =
      stats.slots_allocated == 0 ? 0.0 : 1.0 - static_cast<double>(stats.slots_live) / allocated;
  return {{"groups", std::move(groups)},
          {"prompt_tokens", stats.prompt_tokens},
          {"tokens_hit", stats.tokens_hit},
          {"tokens_missed", std::move(missed)},
          {"sequences", stats.sequences},
          {"nodes", stats.nodes},
          {"nodes_max", stats.nodes_max},
          {"blocks_logical", stats.blocks_logical},
          {"blocks_logical_peak", stats.blocks_logical_peak},
          {"sharing_saved_at_peak", stats.sharing_saved_at_peak},
          {"waste", waste},
          {"blocks_deduplicated", stats.blocks_deduplicated},
          {"blocks_copied", stats.blocks_copied},
          {"blocks_relocated", stats.blocks_relocated},
          {"promises_kept", stats.promises_kept},
          {"pinned_bytes", stats.pinned_bytes},
          {"oldest_cached_age_us", stats.oldest_cached_age_us},
          {"evicted_age_us", stats.evicted_age_us}};
}

}  // namespace kvasir::api
