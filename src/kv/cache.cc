#include "kv/cache.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

namespace kvasir::kv {

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

Lease::Lease(Lease&& other) noexcept
    : cache_(std::exchange(other.cache_, nullptr)), table_(other.table_) {}

Lease& Lease::operator=(Lease&& other) noexcept {
  std::swap(cache_, other.cache_);
  std::swap(table_, other.table_);
  return *this;
}

Lease::~Lease() {
  if (cache_ != nullptr) cache_->close(table_);
}

base::Result<std::unique_ptr<Cache>> Cache::create(const CacheOptions& options) {
  CHECK(options.sequences_max > 0);
  CHECK(options.sequence_tokens_max > 0);
  const BlockLayout layout(options.group, options.block_tokens);
  const auto run_blocks =
      options.mode == CacheMode::kContiguous
          ? static_cast<uint32_t>(layout.blocks_for(options.sequence_tokens_max))
          : 1;
  const uint64_t run_bytes = uint64_t{run_blocks} * layout.block_bytes();
  const uint64_t runs = options.budget_bytes / run_bytes;
  if (runs == 0) {
    return base::bad_input(fmt::format(
        "the KV budget of {} bytes holds not even one {} of {} bytes; give at least that much",
        options.budget_bytes, run_blocks == 1 ? "block" : "contiguous sequence", run_bytes));
  }
  if (runs * run_blocks > std::numeric_limits<uint32_t>::max()) {
    return base::bad_input(
        fmt::format("the KV budget of {} bytes makes more than 2^32 blocks", options.budget_bytes));
  }
  ASSIGN_OR_RETURN(BlockPool pool,
                   BlockPool::create(layout, static_cast<uint32_t>(runs), run_blocks));
  return std::unique_ptr<Cache>(new Cache(options, layout, std::move(pool)));
}

Cache::Cache(const CacheOptions& options, const BlockLayout& layout, BlockPool pool)
    : options_(options), layout_(layout), pool_(std::move(pool)), tables_(options.sequences_max) {
  // A table can never hold more blocks than there are.
  const size_t blocks_max = std::min<size_t>(layout_.blocks_for(options_.sequence_tokens_max),
                                             pool_.stats().blocks_capacity);
  free_tables_.reserve(tables_.size());
  for (size_t i = tables_.size(); i-- > 0;) {
    tables_[i].blocks.reserve(blocks_max);
    tables_[i].pointers.reserve(blocks_max);
    free_tables_.push_back(static_cast<uint32_t>(i));
  }
}

Admission Cache::admission(uint32_t tokens_max) const {
  CHECK(tokens_max >= 1);
  CHECK(tokens_max <= options_.sequence_tokens_max);
  const uint32_t promise = blocks_needed(tokens_max);
  const uint32_t capacity = pool_.stats().blocks_capacity;
  if (promise > capacity) return Admission::kNever;
  if (free_tables_.empty()) return Admission::kLater;
  return promise <= capacity - blocks_promised_ ? Admission::kNow : Admission::kLater;
}

Lease Cache::open(uint32_t tokens_max) {
  CHECK(admission(tokens_max) == Admission::kNow);
  const uint32_t index = free_tables_.back();
  free_tables_.pop_back();
  Table& table = tables_[index];
  CHECK(!table.open);
  CHECK(table.blocks.empty());
  table.open = true;
  table.blocks_promised = blocks_needed(tokens_max);
  blocks_promised_ += table.blocks_promised;
  if (options_.mode == CacheMode::kContiguous) take_run(table);
  return Lease(this, index);
}

void Cache::grow(const Lease& lease, uint32_t tokens) {
  Table& table = table_of(lease);
  const uint64_t needed = layout_.blocks_for(tokens);
  CHECK(needed <= table.blocks_promised);
  while (table.blocks_covered < needed) {
    if (table.blocks_covered == table.blocks.size()) take_run(table);
    pool_.clear(table.blocks[table.blocks_covered]);
    ++table.blocks_covered;
  }
}

void Cache::truncate(const Lease& lease, uint32_t tokens) {
  Table& table = table_of(lease);
  const auto kept = static_cast<uint32_t>(layout_.blocks_for(tokens));
  CHECK(kept <= table.blocks_covered);
  const uint32_t used_slots = tokens % layout_.block_tokens();
  if (used_slots > 0) zero_slots(table.pointers[kept - 1], used_slots);
  // A contiguous run is kept whole; its blocks are zero-filled again when they are grown into.
  if (options_.mode != CacheMode::kContiguous) release_blocks_from(table, kept);
  table.blocks_covered = kept;
}

View Cache::view(const Lease& lease) const {
  CHECK(lease.cache_ == this);
  const Table& table = tables_[lease.table_];
  CHECK(table.open);
  return {&layout_, std::span(table.pointers).first(table.blocks_covered)};
}

CacheStats Cache::stats() const {
  return {.pool = pool_.stats(),
          .blocks_promised = blocks_promised_,
          .block_bytes = layout_.block_bytes()};
}

void Cache::check_invariants() const {
  pool_.check_invariants();
  uint64_t references = 0;
  uint32_t promised = 0;
  uint32_t closed = 0;
  for (const Table& table : tables_) {
    CHECK(table.open || table.blocks.empty());
    CHECK(table.blocks_covered <= table.blocks.size());
    CHECK(table.blocks.size() <= table.blocks_promised);
    CHECK(table.pointers.size() == table.blocks.size());
    references += table.blocks.size();
    promised += table.blocks_promised;
    if (!table.open) ++closed;
    for (size_t i = 0; i < table.blocks.size(); ++i) {
      CHECK(pool_.references(table.blocks[i]) == 1);
      CHECK(pool_.data(table.blocks[i]) == table.pointers[i]);
    }
  }
  CHECK(references == pool_.stats().blocks_referenced);
  CHECK(promised == blocks_promised_);
  CHECK(promised <= pool_.stats().blocks_capacity);
  CHECK(closed == free_tables_.size());
}

uint32_t Cache::blocks_needed(uint32_t tokens_max) const {
  if (options_.mode == CacheMode::kContiguous) return pool_.run_blocks();
  return static_cast<uint32_t>(layout_.blocks_for(tokens_max));
}

void Cache::take_run(Table& table) {
  const std::optional<BlockId> first = pool_.take();
  CHECK(first.has_value());  // promised at open()
  for (uint32_t i = 0; i < pool_.run_blocks(); ++i) {
    const BlockId block{index_of(*first) + i};
    CHECK(table.blocks.size() < table.blocks.capacity());
    table.blocks.push_back(block);
    table.pointers.push_back(pool_.data(block));
  }
}

// Tail first: what is freed last is reused first.
void Cache::release_blocks_from(Table& table, uint32_t first) {
  while (table.blocks.size() > first) {
    pool_.drop_reference(table.blocks.back());
    table.blocks.pop_back();
    table.pointers.pop_back();
  }
  table.blocks_covered = std::min(table.blocks_covered, first);
}

void Cache::zero_slots(std::byte* block, uint32_t first_slot) const {
  const GroupShape& group = layout_.group();
  for (uint32_t layer = 0; layer < group.layers; ++layer) {
    for (uint32_t head = 0; head < group.kv_heads; ++head) {
      quant::clear_slots(layout_.tile(), first_slot, block + layout_.key_offset(layer, head),
                         block + layout_.value_offset(layer, head));
    }
  }
}

void Cache::close(uint32_t index) {
  Table& table = tables_[index];
  CHECK(table.open);
  release_blocks_from(table, 0);
  CHECK(blocks_promised_ >= table.blocks_promised);
  blocks_promised_ -= table.blocks_promised;
  table.blocks_promised = 0;
  table.open = false;
  free_tables_.push_back(index);
}

Cache::Table& Cache::table_of(const Lease& lease) {
  CHECK(lease.cache_ == this);
  CHECK(tables_[lease.table_].open);
  return tables_[lease.table_];
}

}  // namespace kvasir::kv
