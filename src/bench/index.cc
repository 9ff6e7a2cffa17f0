// index: what finding, adding and dropping a block costs by the size of the cache.
//
// No model runs: the prefix index, the block pool and the eviction queue are driven as kv::Cache
// drives them for full blocks, with blocks of 64 bytes, so that a million of them fit. Blocks of
// real keys and values can not be so small. Chains of 64 blocks, 2,048 tokens, stand under one
// root, as prompts without anything in common do.
//
// measure_*() are not inlined, so that a profiler can count their instructions by name.
#include <fmt/format.h>

#include <algorithm>

#include "base/rng.h"
#include "bench/stopwatch.h"
#include "bench/workloads.h"
#include "kv/block_pool.h"
#include "kv/eviction.h"
#include "kv/prefix_index.h"

namespace kvasir::bench {
namespace {

constexpr uint32_t kSizes[] = {1'000, 10'000, 100'000, 1'000'000};
constexpr uint32_t kBlockTokens = 32;
constexpr uint32_t kBlockBytes = 64;
constexpr uint32_t kChainBlocks = 64;
constexpr uint32_t kRoundChains = 4;  // that a round inserts, matches and evicts
constexpr uint32_t kRounds = 300;
constexpr uint32_t kBlocksMax = 4'000'000;  // 2 GB with their nodes
constexpr uint32_t kReusedPercentMax = 80;

using Tokens = std::vector<TokenId>;

// The prompt of chain `number`.
Tokens chain_tokens(uint64_t number) {
  Tokens tokens;
  tokens.reserve(kChainBlocks * kBlockTokens);
  for (uint64_t i = 0; tokens.size() < kChainBlocks * kBlockTokens; ++i) {
    for (const uint32_t bits : base::random_bits({.seed = 2, .choice = number}, i)) {
      tokens.push_back(static_cast<TokenId>(bits % 50'000));
    }
  }
  return tokens;
}

// One KV group of small blocks and everything that finds them.
class SmallCache {
 public:
  static base::Result<SmallCache> create(uint32_t chains) {
    const uint32_t blocks = chains * kChainBlocks;
    ASSIGN_OR_RETURN(kv::BlockPool pool,
                     kv::BlockPool::create({.block_bytes = {kBlockBytes},
                                            .budget_bytes = uint64_t{blocks} * kBlockBytes}));
    return SmallCache(blocks, std::move(pool));
  }

  // As a sequence does that computes a new prompt and ends: its blocks are sealed as they fill and
  // become evictable, the last one first. Requires: enough free blocks.
  void insert(const Tokens& tokens) {
    chain_.clear();
    kv::NodeId parent = root_;
    index_->add_reference(root_);
    for (uint32_t i = 0; i < kChainBlocks; ++i) {
      const auto block_tokens = block_of(tokens, i);
      const kv::Digest digest = index_->digest_after(index_->node(parent).digest, block_tokens);
      CHECK(!index_->find(parent, digest, block_tokens));
      const kv::NodeId node = index_->insert(parent, digest, block_tokens);
      index_->add_reference(node);
      const std::optional<BlockId> block = pool_.take(0);
      CHECK(block.has_value());
      pool_.clear(*block);
      pool_.seal(*block);
      index_->set_block(node, 0, pool_.ref(*block));
      owners_[index_of(*block)] = node;
      chain_.push_back(node);
      parent = node;
    }
    for (; !chain_.empty(); chain_.pop_back()) {
      const BlockId block = index_->block(chain_.back(), 0)->id;
      CHECK(pool_.drop_reference(block));
      pool_.cache(block);
      queue_.insert(block, kv::Retention::kNormal, kv::Worth::kSeenOnce);
      index_->drop_reference(chain_.back());
    }
    index_->drop_reference(root_);
  }

  // Blocks of the prompt that are cached, token by token.
  uint32_t match(const Tokens& tokens) const {
    kv::NodeId last = root_;
    kv::Digest digest = index_->node(root_).digest;
    uint32_t blocks = 0;
    while (blocks < kChainBlocks) {
      const auto block_tokens = block_of(tokens, blocks);
      digest = index_->digest_after(digest, block_tokens);
      const std::optional<kv::NodeId> next = index_->find(last, digest, block_tokens);
      if (!next) break;
      last = *next;
      ++blocks;
    }
    return blocks;
  }

  // Frees the block that goes next, and its node.
  void evict() {
    const std::optional<BlockId> block = queue_.next();
    CHECK(block.has_value());
    const kv::NodeId node = *std::exchange(owners_[index_of(*block)], std::nullopt);
    CHECK(!index_->has_children(node));
    queue_.remove(*block);
    index_->set_block(node, 0, std::nullopt);
    pool_.free(*block);
    index_->erase(node);
  }

  uint32_t blocks() const { return pool_.counts(0).of(kv::BlockState::kCached); }

 private:
  SmallCache(uint32_t blocks, kv::BlockPool pool)
      : pool_(std::move(pool)),
        index_(std::make_unique<kv::PrefixIndex>(
            kv::PrefixIndex::Options{.nodes_max = 2 * blocks + 64, .block_tokens = kBlockTokens})),
        queue_(pool_.ids_end(), blocks / 100 * kReusedPercentMax),
        owners_(pool_.ids_end()) {
    const auto words = kv::words_of({});
    root_ = index_->insert(std::nullopt, index_->digest_after(index_->seed(), words), words);
    chain_.reserve(kChainBlocks);
  }

  static std::span<const TokenId> block_of(const Tokens& tokens, uint32_t block) {
    return std::span(tokens).subspan(size_t{block} * kBlockTokens, kBlockTokens);
  }

  kv::BlockPool pool_;
  std::unique_ptr<kv::PrefixIndex> index_;  // its nodes are linked by address
  kv::EvictionQueue queue_;
  std::vector<std::optional<kv::NodeId>> owners_;  // by block
  kv::NodeId root_{};
  std::vector<kv::NodeId> chain_;
};

[[gnu::noinline]] double measure_insert(SmallCache& cache, std::span<const Tokens> prompts) {
  const SteadyTime start = start_stopwatch();
  for (const Tokens& tokens : prompts) cache.insert(tokens);
  return 1e9 * seconds_since(start);
}

[[gnu::noinline]] double measure_match(const SmallCache& cache, std::span<const Tokens> prompts) {
  const SteadyTime start = start_stopwatch();
  for (const Tokens& tokens : prompts) CHECK(cache.match(tokens) == kChainBlocks);
  return 1e9 * seconds_since(start);
}

[[gnu::noinline]] double measure_evict(SmallCache& cache, uint32_t blocks) {
  const SteadyTime start = start_stopwatch();
  for (uint32_t i = 0; i < blocks; ++i) cache.evict();
  return 1e9 * seconds_since(start);
}

void write(const BenchHooks& hooks, const std::string& name, uint32_t blocks,
           std::vector<double> ns) {
  const Spread spread = spread_of(std::move(ns));
  boost::json::object line = machine_line("index", name);
  line["blocks"] = blocks;
  line["ns_per_op"] = spread.median;
  line["ns_per_op_min"] = spread.min;
  hooks.on_line(line);
}

base::Status run_size(const BenchHooks& hooks, uint32_t blocks_wanted, uint32_t rounds) {
  const uint32_t chains = std::max((blocks_wanted - 1) / kChainBlocks + 1, 2 * kRoundChains);
  const uint32_t blocks = chains * kChainBlocks;
  ASSIGN_OR_RETURN(SmallCache cache, SmallCache::create(chains));
  for (uint32_t i = 0; i < chains; ++i) {
    if (i % 1024 == 0) {
      show_progress(hooks, fmt::format("index: filling {} blocks", blocks));
      RETURN_IF_ERROR(check_cancelled(hooks));
    }
    cache.insert(chain_tokens(i));
  }
  constexpr double kRoundBlocks = kRoundChains * kChainBlocks;
  std::vector<double> insert;
  std::vector<double> match;
  std::vector<double> evict;
  for (uint32_t round = 0; round < rounds; ++round) {
    RETURN_IF_ERROR(check_cancelled(hooks));
    // Chains [round * kRoundChains, chains + round * kRoundChains) are there: the oldest go.
    const uint64_t oldest = uint64_t{round} * kRoundChains;
    std::vector<Tokens> known;
    std::vector<Tokens> fresh;
    for (uint32_t i = 0; i < kRoundChains; ++i) {
      const uint32_t bits = base::random_bits({.seed = 3, .choice = round}, i)[0];
      known.push_back(chain_tokens(oldest + bits % chains));
      fresh.push_back(chain_tokens(oldest + chains + i));
    }
    match.push_back(measure_match(cache, known) / kRoundBlocks);
    evict.push_back(measure_evict(cache, kRoundChains * kChainBlocks) / kRoundBlocks);
    insert.push_back(measure_insert(cache, fresh) / kRoundBlocks);
    CHECK(cache.blocks() == blocks);
  }
  std::vector<double> whole = match;
  for (double& ns : whole) ns *= kChainBlocks;
  write(hooks, fmt::format("match@{}", blocks_wanted), blocks, std::move(match));
  write(hooks, fmt::format("insert@{}", blocks_wanted), blocks, std::move(insert));
  write(hooks, fmt::format("evict@{}", blocks_wanted), blocks, std::move(evict));
  write(hooks, fmt::format("match2048@{}", blocks_wanted), blocks, std::move(whole));
  return {};
}

}  // namespace

base::Status bench_index(const BenchOptions& options, const BenchHooks& hooks) {
  const uint32_t rounds = or_default(options.repeat, kRounds);
  if (options.tokens > kBlocksMax) {
    return base::bad_input(fmt::format("--tokens {}: the index is measured with at most {} blocks",
                                       options.tokens, kBlocksMax));
  }
  if (options.tokens > 0) return run_size(hooks, options.tokens, rounds);
  for (const uint32_t blocks : kSizes) RETURN_IF_ERROR(run_size(hooks, blocks, rounds));
  return {};
}

}  // namespace kvasir::bench
