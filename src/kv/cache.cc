#include "kv/cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"

namespace kvasir::kv {
namespace {

// Of all cached blocks, how many may be of those that were used again.
constexpr uint32_t kReusedPercentMax = 80;

uint32_t nodes_for(const CacheOptions& options, const BlockPool& pool) {
  uint64_t blocks = 0;
  for (uint32_t g = 0; g < pool.groups(); ++g) {
    blocks = std::max<uint64_t>(blocks, pool.blocks_max(g));
  }
  // Nodes without bytes: roots, promises, and what stands before a sliding window.
  const uint64_t nodes = 2 * blocks + 2 * uint64_t{options.sequences_max} + 64;
  return static_cast<uint32_t>(std::min<uint64_t>(nodes, UINT32_MAX / 2));
}

}  // namespace

std::optional<CacheMode> parse_cache_mode(std::string_view name) {
  if (name == "none") return CacheMode::kNone;
  if (name == "contiguous") return CacheMode::kContiguous;
  if (name == "paged") return CacheMode::kPaged;
  return std::nullopt;
}

std::string_view cache_mode_name(CacheMode mode) {
  switch (mode) {
    case CacheMode::kNone:
      return "none";
    case CacheMode::kContiguous:
      return "contiguous";
    case CacheMode::kPaged:
      return "paged";
  }
  return "";
}

base::Result<std::unique_ptr<Cache>> Cache::create(const CacheOptions& options) {
  CHECK(options.sequences_max > 0);
  CHECK(options.sequence_tokens_max > 0);
  CHECK(!options.groups.empty());
  CHECK(options.mode != CacheMode::kContiguous || options.groups.size() == 1);
  std::vector<BlockLayout> layouts;
  PoolOptions pool_options{.budget_bytes = options.budget_bytes,
                           .slab_unit_bytes = options.slab_unit_bytes,
                           .poison_released = options.verify};
  // Groups of encoders come last: their blocks hold no tokens of the sequence.
  CHECK(options.groups.front().kind != GroupKind::kCross);
  CHECK(std::ranges::is_partitioned(
      options.groups, [](const GroupShape& g) { return g.kind != GroupKind::kCross; }));
  for (const GroupShape& group : options.groups) {
    CHECK(group.kind != GroupKind::kSlidingWindow || group.window_tokens > 0);
    CHECK(group.kind != GroupKind::kCross || options.encoder_tokens_max > 0);
    layouts.emplace_back(group, options.block_tokens);
    pool_options.block_bytes.push_back(layouts.back().block_bytes());
  }
  ASSIGN_OR_RETURN(BlockPool pool, BlockPool::create(pool_options));
  std::unique_ptr<Cache> cache(new Cache(options, std::move(layouts), std::move(pool)));
  const uint32_t least =
      options.mode == CacheMode::kContiguous ? options.sequence_tokens_max : uint32_t{1};
  if (!cache->can_ever_fit(least)) {
    return base::bad_input(fmt::format(
        "the KV budget of {} bytes holds not even one {} of {} tokens; give at least {} bytes",
        options.budget_bytes,
        options.mode == CacheMode::kContiguous ? "contiguous sequence" : "sequence", least,
        uint64_t{cache->run_blocks(least)} * cache->layout().block_bytes()));
  }
  return cache;
}

Cache::Cache(const CacheOptions& options, std::vector<BlockLayout> layouts, BlockPool pool)
    : options_(options),
      layouts_(std::move(layouts)),
      pool_(std::move(pool)),
      index_({.nodes_max = nodes_for(options, pool_),
              .block_tokens = options.block_tokens,
              .groups = pool_.groups(),
              .digest = options.digest,
              .seed = options.identity}),
      seen_(2 * index_.nodes_max()),
      owners_(pool_.ids_end()),
      tables_(options.sequences_max),
      pinned_blocks_(pool_.groups()),
      token_groups_(static_cast<uint32_t>(std::ranges::count_if(
          options.groups, [](const GroupShape& g) { return g.kind != GroupKind::kCross; }))),
      encoders_(token_groups_ < options.groups.size() ? options.encoder_inputs_max : 0,
                options.encoder_tokens_max, options.block_tokens) {
  const uint64_t sequence_blocks = layouts_[0].blocks_for(options.sequence_tokens_max);
  for (uint32_t g = 0; g < groups(); ++g) {
    queues_.emplace_back(pool_.ids_end(), pool_.blocks_max(g) / 100 * kReusedPercentMax +
                                              pool_.blocks_max(g) % 100 * kReusedPercentMax / 100);
  }
  totals_.groups.resize(groups());
  free_tables_.reserve(tables_.size());
  for (size_t i = tables_.size(); i-- > 0;) {
    Table& table = tables_[i];
    table.tokens.reserve(options.sequence_tokens_max);
    table.chain.reserve(sequence_blocks);
    for (uint32_t g = 0; g < groups(); ++g) {
      // A table can hold as many blocks as a sequence has, in kContiguous a power of two of them,
      // and a copy of the last.
      const uint64_t encoder_blocks = layouts_[g].blocks_for(options.encoder_tokens_max);
      const uint64_t blocks = std::max(std::bit_ceil(sequence_blocks) + 1, encoder_blocks);
      table.groups[g].blocks.reserve(blocks);
      table.groups[g].pointers.reserve(blocks);
      table.views.push_back({.layout = &layouts_[g]});
    }
    free_tables_.push_back(static_cast<uint32_t>(i));
  }
  match_chain_.reserve(sequence_blocks + 1);
  moving_.reserve(pool_.ids_end() / pool_.slab_count() + 1);
}

bool Cache::can_ever_fit(uint32_t tokens_max, uint32_t encoder_tokens) const {
  if (options_.mode == CacheMode::kContiguous) {
    return run_blocks(tokens_max) <= pool_.blocks_max(0);
  }
  uint64_t slabs = 0;
  for (uint32_t g = 0; g < groups(); ++g) {
    uint64_t blocks = layouts_[g].blocks_for(g < token_groups() ? tokens_max : encoder_tokens);
    if (shape(g).kind == GroupKind::kSlidingWindow) {
      const uint64_t span = uint64_t{shape(g).window_tokens} + options_.step_tokens_max;
      blocks = std::min(blocks, layouts_[g].blocks_for(span) + 1);
    }
    slabs += base::div_ceil(blocks, pool_.slab_block_count(g));
  }
  return slabs <= pool_.slab_count();
}

uint32_t Cache::blocks_for(uint32_t tokens) const {
  return static_cast<uint32_t>(layouts_[0].blocks_for(tokens));
}

uint32_t Cache::blocks_capacity() const {
  uint32_t least = UINT32_MAX;
  for (uint32_t g = 0; g < token_groups(); ++g) least = std::min(least, pool_.blocks_max(g));
  return least;
}

uint32_t Cache::blocks_available() const {
  uint32_t least = UINT32_MAX;
  for (uint32_t g = 0; g < token_groups(); ++g) least = std::min(least, available(g));
  return least;
}

uint32_t Cache::blocks_held(const Lease& lease) const {
  return static_cast<uint32_t>(table_of(lease).groups[0].blocks.size());
}

bool Cache::copies_tail(const Lease& lease) const {
  const Table& table = table_of(lease);
  const bool writes_tail = table.tokens.size() % block_tokens() > 0;
  return shares() && writes_tail && !tail_is_private(table);
}

uint32_t Cache::run_blocks(uint32_t tokens_max) const {
  if (options_.contiguous_run == ContiguousRun::kLongest) {
    return blocks_for(options_.sequence_tokens_max);
  }
  return std::bit_ceil(blocks_for(tokens_max));
}

std::optional<Opened> Cache::open(const SequenceSpec& spec) {
  CHECK(!spec.prompt.empty());
  CHECK(spec.prompt.size() <= spec.tokens_max);
  CHECK(spec.tokens_max <= options_.sequence_tokens_max);
  CHECK(can_ever_fit(spec.tokens_max));
  const std::optional<uint32_t> claimed = claim_table(spec);
  if (!claimed) return std::nullopt;
  Table& table = tables_[*claimed];
  if (!spec.encoder.empty() && !attach_encoder(table, spec)) {
    close(*claimed, /*seals_tail=*/false);
    return std::nullopt;
  }
  const Match found = match(spec);
  const MatchReport how = report(spec, found);
  if (shares()) {
    adopt_match(table, found);
    table.tokens.assign(spec.prompt.begin(), spec.prompt.begin() + found.tokens);
    table.branch_tokens = found.tokens;
    table.slots = found.tokens;
    promise_rest(*claimed, spec.prompt);
  }
  refresh_views(table);
  note_sharing();
  if (spec.counts) {
    totals_.prompt_tokens += spec.prompt.size();
    totals_.tokens_hit += how.tokens_cached;
    for (size_t i = 0; i < kMissReasons; ++i) totals_.tokens_missed[i] += how.missed[i];
  }
  return Opened{Lease(this, *claimed), how};
}

std::optional<uint32_t> Cache::claim_table(const SequenceSpec& spec) {
  if (free_tables_.empty()) return std::nullopt;
  const uint32_t index = free_tables_.back();
  Table& table = tables_[index];
  CHECK(!table.open);
  if (options_.mode == CacheMode::kContiguous && !take_run(table, run_blocks(spec.tokens_max))) {
    return std::nullopt;
  }
  free_tables_.pop_back();
  table.open = true;
  table.indexed = shares();
  table.retention = spec.retention;
  table.prompt_tokens = static_cast<uint32_t>(spec.prompt.size());
  if (!shares()) return index;
  const auto words = words_of(spec.domain, spec.encoder);
  table.root = node_for(std::nullopt, words);
  if (table.root) {
    index_.add_reference(*table.root);
  } else {
    table.indexed = false;  // every node is in use: this sequence stays private
  }
  return index;
}

bool Cache::take_run(Table& table, uint32_t count) {
  const std::optional<BlockId> first = pool_.take_run(count);
  if (!first) return false;
  for (uint32_t i = 0; i < count; ++i) push_block(table, 0, BlockId{index_of(*first) + i});
  return true;
}

// Takes references to what the match found, in every group as far back as the group looks.
void Cache::adopt_match(Table& table, const Match& match) {
  const uint32_t blocks = match.tokens / block_tokens();
  for (uint32_t i = 0; i < blocks; ++i) {
    index_.add_reference(match_chain_[i]);
    index_.mark_reused(match_chain_[i]);
    index_.raise_retention(match_chain_[i], table.retention);
    table.chain.push_back(match_chain_[i]);
  }
  table.sealed = blocks;
  if (match.tokens % block_tokens() > 0) {
    CHECK(blocks == match.blocks);  // windows shorten a match to whole blocks
    table.borrowed = match.partial->node;
    index_.add_reference(*table.borrowed);
    index_.mark_reused(*table.borrowed);
    index_.raise_retention(*table.borrowed, table.retention);
  }
  const uint32_t entries = blocks_for(match.tokens);
  for (uint32_t g = 0; g < token_groups(); ++g) {
    GroupTable& group = table.groups[g];
    group.first = std::min(first_needed(g, match.tokens), entries);
    group.blocks.resize(group.first);
    group.pointers.resize(group.first, nullptr);
    for (uint32_t i = group.first; i < entries; ++i) {
      const NodeId node = i < blocks ? table.chain[i] : *table.borrowed;
      const std::optional<BlockRef> block = index_.block(node, g);
      CHECK(block.has_value());
      CHECK(!pool_.is_stale(*block));
      add_block_reference(block->id);
      push_block(table, g, block->id);
    }
  }
}

std::optional<Reservation> Cache::reserve(const Lease& lease, uint32_t tokens, uint32_t keep_back) {
  Table& table = table_of(lease);
  CHECK(!table.reserved);
  CHECK(tokens >= table.tokens.size());
  CHECK(tokens <= options_.sequence_tokens_max);
  if (options_.mode == CacheMode::kContiguous) {
    GroupTable& group = table.groups[0];
    CHECK(blocks_for(tokens) <= group.blocks.size());
    for (uint32_t i = blocks_for(table.slots); i < blocks_for(tokens); ++i) {
      pool_.clear(group.blocks[i]);
    }
  } else if (!make_room(table, tokens, keep_back)) {
    return std::nullopt;
  }
  table.reserved = true;
  table.slots = tokens;
  refresh_views(table);
  note_sharing();
  return Reservation(this, lease.table_);
}

void Cache::append(Reservation reservation, std::span<const TokenId> tokens) {
  CHECK(reservation.cache_ == this);
  Table& table = tables_[reservation.table_];
  CHECK(table.reserved);
  table.tokens.insert(table.tokens.end(), tokens.begin(), tokens.end());
  CHECK(table.tokens.size() <= table.slots);
  if (options_.publish == Publish::kWhenSealed) seal_full_blocks(reservation.table_);
  leave_window(table);
}

void Cache::end_reservation(uint32_t index) {
  Table& table = tables_[index];
  CHECK(table.reserved);
  table.reserved = false;
  table.slots = static_cast<uint32_t>(table.tokens.size());
  if (options_.mode != CacheMode::kContiguous) release_blocks_from(table, blocks_for(table.slots));
  refresh_views(table);
}

void Cache::truncate(const Lease& lease, uint32_t tokens) {
  Table& table = table_of(lease);
  CHECK(!table.reserved);
  CHECK(tokens <= table.tokens.size());
  const uint32_t blocks = tokens / block_tokens();
  const uint32_t slots_used = tokens % block_tokens();
  for (uint32_t g = 0; g < token_groups(); ++g) {
    CHECK(tokens == 0 || table.groups[g].first <= first_needed(g, tokens));
  }
  withdraw_promises(lease.table_);
  std::optional<NodeId> borrowed;
  if (slots_used > 0) {
    borrowed = blocks < table.sealed                   ? std::optional(table.chain[blocks])
               : blocks_for(table.slots) == blocks + 1 ? table.borrowed
                                                       : std::nullopt;
    if (borrowed) index_.add_reference(*borrowed);
  }
  if (options_.mode != CacheMode::kContiguous) release_blocks_from(table, blocks_for(tokens));
  while (table.chain.size() > blocks) {
    index_.drop_reference(table.chain.back());
    table.chain.pop_back();
  }
  table.sealed = std::min(table.sealed, blocks);
  if (table.borrowed) index_.drop_reference(*std::exchange(table.borrowed, std::nullopt));
  table.borrowed = borrowed;
  table.tokens.resize(tokens);
  table.slots = tokens;
  clear_private_tail(table);
  refresh_views(table);
}

void Cache::discard(Lease lease) {
  CHECK(lease.cache_ == this);
  lease.cache_ = nullptr;
  close(lease.table_, /*seals_tail=*/false);
}

// Tail first, so that a chain is evicted from its end.
void Cache::close(uint32_t index, bool seals_tail) {
  Table& table = tables_[index];
  CHECK(table.open);
  CHECK(!table.reserved);
  seal_full_blocks(index);
  if (seals_tail) seal_tail(table);
  withdraw_promises(index);
  release_blocks_from(table, 0);
  detach_encoder(table);
  if (table.borrowed) index_.drop_reference(*std::exchange(table.borrowed, std::nullopt));
  while (!table.chain.empty()) {
    const NodeId node = table.chain.back();
    table.chain.pop_back();
    index_.drop_reference(node);
    erase_if_empty(node);
  }
  if (const auto root = std::exchange(table.root, std::nullopt)) {
    index_.drop_reference(*root);
    erase_if_empty(root);
  }
  table.sealed = 0;
  table.stale_tail = false;
  table.tokens.clear();
  table.slots = 0;
  table.open = false;
  free_tables_.push_back(index);
}

ResetResult Cache::reset() {
  ResetResult result;
  for (const Table& table : tables_) result.sequences_open += table.open ? 1 : 0;
  const bool pinned = std::ranges::any_of(pinned_blocks_, [](uint32_t n) { return n > 0; });
  if (result.sequences_open > 0 || pinned) return result;
  for (uint32_t g = 0; g < groups(); ++g) {
    result.blocks_freed += pool_.counts(g).of(BlockState::kCached);
  }
  while (const std::optional<NodeId> node = index_.oldest_idle()) drop_node(*node);
  while (const std::optional<uint32_t> entry = encoders_.oldest_idle()) drop_encoder_entry(*entry);
  seen_.clear();
  result.done = true;
  return result;
}

View Cache::view(const Lease& lease) const {
  return {table_of(lease).views};
}

uint32_t Cache::tokens(const Lease& lease) const {
  return static_cast<uint32_t>(table_of(lease).tokens.size());
}

// In kContiguous more blocks are held than may be read: those not reached yet are not zero-filled.
void Cache::refresh_views(Table& table) {
  for (uint32_t g = 0; g < groups(); ++g) {
    const std::span<std::byte* const> blocks = table.groups[g].pointers;
    table.views[g].blocks = g < token_groups() ? blocks.first(blocks_for(table.slots)) : blocks;
  }
}

Cache::Table& Cache::table_of(const Lease& lease) {
  return const_cast<Table&>(std::as_const(*this).table_of(lease));
}

const Cache::Table& Cache::table_of(const Lease& lease) const {
  CHECK(lease.cache_ == this);
  CHECK(tables_[lease.table_].open);
  return tables_[lease.table_];
}

// The first block that the row at position `tokens` reads in this group.
uint32_t Cache::first_needed(uint32_t group, uint32_t tokens) const {
  if (shape(group).kind != GroupKind::kSlidingWindow) return 0;
  const uint32_t window = shape(group).window_tokens;
  return tokens + 1 <= window ? 0 : (tokens + 1 - window) / block_tokens();
}

std::span<const TokenId> Cache::block_of(std::span<const TokenId> tokens, uint32_t block) const {
  return tokens.subspan(size_t{block} * block_tokens(), block_tokens());
}

}  // namespace kvasir::kv
