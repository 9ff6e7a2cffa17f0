// The door of the KV cache: who may hold how much of it, what is shared, and where a sequence's
// tokens live. It knows no model, kernel or file format.
//
//   open ---> match the prompt against everything cached; share what is found
//   reserve -> slots for the next step, all or nothing; evicts what nobody uses
//   append --> the rows are written; full blocks are sealed and can be shared from now on
//   fork ----> another sequence with the same tokens; what it writes is copied first
//   (drop) --> the last tokens are sealed, too; everything stays cached until it is evicted
//
// Modes:
//   kPaged       blocks are taken as a sequence grows, shared, and stay cached when it ends
//   kContiguous  one run of blocks for the longest possible sequence is taken at once, as the
//                textbooks do; kept so that what paging gains is measured and not claimed
//   kNone        the engine empties the table after every token and computes all keys and values
//                again: the naive engine, as a mode of the same program
//
// Thread: engine thread only. Allocates: create() and stats() only.
// Invariants: see check_invariants().
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "kv/block_pool.h"
#include "kv/encoder_cache.h"
#include "kv/eviction.h"
#include "kv/identity.h"
#include "kv/prefix_index.h"
#include "kv/seen_table.h"
#include "kv/statistics.h"
#include "kv/view.h"

namespace kvasir::kv {

enum class CacheMode : uint8_t { kNone, kContiguous, kPaged };

std::optional<CacheMode> parse_cache_mode(std::string_view name);  // "none", "contiguous", "paged"
std::string_view cache_mode_name(CacheMode mode);

// When others may share a block. kWhenFinished is what early reuse is measured against.
enum class Publish : uint8_t { kWhenSealed, kWhenFinished };

// What kContiguous sets aside for a sequence.
enum class ContiguousRun : uint8_t { kLongest, kPowerOfTwo };

struct CacheOptions {
  CacheMode mode = CacheMode::kPaged;
  std::vector<GroupShape> groups;
  uint32_t block_tokens = 32;
  uint64_t budget_bytes = 0;  // the arena never exceeds it
  uint32_t sequences_max = 1;
  uint32_t sequence_tokens_max = 0;       // longest sequence that may ever be opened
  uint32_t step_tokens_max = UINT32_MAX;  // reserved at a time: bounds what a window takes
  Publish publish = Publish::kWhenSealed;
  ContiguousRun contiguous_run = ContiguousRun::kLongest;
  uint32_t pinned_percent_max = 25;  // of the blocks of each group
  // What keys and values depend on beside tokens and domain: secret, model, numerics class, dtype.
  Digest identity{};
  DigestFunction digest = sha256_chain;
  uint64_t slab_unit_bytes = uint64_t{2} << 20;
  uint32_t encoder_tokens_max = 0;   // longest input of an encoder; groups of kind kCross need it
  uint32_t encoder_inputs_max = 64;  // kept at a time, in use or not
  bool verify = false;  // tests: poison what is freed, compare bytes that should be equal
};

class Cache;

// One sequence's place in the cache. Destroying it seals its last tokens and lets go of its blocks,
// which stay cached. Move-only. The Cache must outlive it.
class Lease {
 public:
  Lease(Lease&& other) noexcept;
  Lease& operator=(Lease&& other) noexcept;
  ~Lease();

 private:
  friend class Cache;
  Lease(Cache* cache, uint32_t table) : cache_(cache), table_(table) {}

  Cache* cache_;  // nullptr: moved from
  uint32_t table_;
};

// Slots for one sequence's next rows. Destroying it gives back what append() has not used.
// Move-only. The lease must outlive it.
class Reservation {
 public:
  Reservation(Reservation&& other) noexcept;
  Reservation& operator=(Reservation&& other) noexcept;
  ~Reservation();

 private:
  friend class Cache;
  Reservation(Cache* cache, uint32_t table) : cache_(cache), table_(table) {}

  Cache* cache_;
  uint32_t table_;
};

// Keeps a prefix from eviction while it lives. Move-only.
class Pin {
 public:
  Pin(Pin&& other) noexcept;
  Pin& operator=(Pin&& other) noexcept;
  ~Pin();

 private:
  friend class Cache;
  Pin(Cache* cache, NodeId last) : cache_(cache), last_(last) {}

  Cache* cache_;
  NodeId last_;
};

struct SequenceSpec {
  CacheDomain domain;
  std::span<const TokenId> prompt;   // at least one token; may hold an answer begun before
  uint32_t tokens_max = 0;           // the longest it can get
  std::span<const TokenId> encoder;  // input of the encoder; empty: none
  Retention retention = Retention::kNormal;
  bool reads_cache = true;  // false: match nothing, but publish
  bool counts = true;       // in the statistics of hits and misses
};

struct Opened {
  Lease lease;
  MatchReport match;
};

// What open() would find.
struct Probe {
  uint32_t tokens_cached = 0;
  uint32_t blocks_wanted = 0;       // of the group that wants most, until the prompt is computed
  uint32_t tokens_promised = 0;     // that running sequences will add right after
  std::optional<NodeRef> promised;  // the last of them
};

struct ResetResult {
  bool done = false;            // false: refused, nothing has changed
  uint32_t sequences_open = 0;  // why it was refused
  uint32_t blocks_freed = 0;
};

struct AuditReport {
  uint32_t block_references_wrong = 0;
  uint32_t node_references_wrong = 0;
  uint32_t queue_entries_wrong = 0;
  bool ok() const {
    return block_references_wrong + node_references_wrong + queue_entries_wrong == 0;
  }
};

class Cache {
 public:
  // Error: the budget is smaller than one sequence needs at least, or memory can not be had.
  static base::Result<std::unique_ptr<Cache>> create(const CacheOptions& options);
  Cache(const Cache&) = delete;  // leases point to it: it never moves
  Cache& operator=(const Cache&) = delete;

  // Whether one sequence of so many tokens fits into the empty cache.
  bool can_ever_fit(uint32_t tokens_max, uint32_t encoder_tokens = 0) const;
  // Blocks of every group that nobody uses: free or evictable.
  uint32_t blocks_available() const;
  uint32_t blocks_capacity() const;  // of the smallest group
  // New blocks that computing tokens [0, tokens) takes in the group that needs most.
  uint32_t blocks_for(uint32_t tokens) const;
  uint32_t blocks_held(const Lease& lease) const;
  // Whether the next token takes a block for a copy of the last one, which others see, too.
  bool copies_tail(const Lease& lease) const;

  // What open(spec) would find, without doing it.
  Probe probe(const SequenceSpec& spec);
  // Whether the blocks a probe saw promised are still to come.
  bool is_promised(NodeRef node) const;
  // Whether it is this sequence that promised it.
  bool has_promised(const Lease& lease, NodeRef node) const;

  // A place for a sequence: shares the longest cached prefix of its prompt (but the last token),
  // and promises the full blocks that follow to others. nullopt, not now: no place, or in
  // kContiguous no run of blocks. Requires: can_ever_fit(tokens_max).
  std::optional<Opened> open(const SequenceSpec& spec);

  // Whether the keys and values of the sequence's encoder input are still to be written, through
  // view(); encoded() says that they are.
  bool needs_encoding(const Lease& lease) const;
  std::span<const TokenId> encoder_input(const Lease& lease) const;
  void encoded(const Lease& lease);

  // Slots for positions [tokens(), tokens). Evicts, but never so much that fewer than `keep_back`
  // blocks remain available. nullopt, not now: too few blocks; nothing is taken then.
  // Requires: tokens() <= tokens <= the longest sequence; no other reservation of this lease.
  std::optional<Reservation> reserve(const Lease& lease, uint32_t tokens, uint32_t keep_back = 0);
  // The rows of these tokens have been written, in reserved slots.
  void append(Reservation reservation, std::span<const TokenId> tokens);
  // Forgets the tokens from position `tokens` on. Requires: tokens <= tokens(); tokens is 0, or no
  // window has left what its next row reads.
  void truncate(const Lease& lease, uint32_t tokens);
  // Another sequence with the same tokens. nullopt, not now: no place for it (kContiguous: no run).
  std::optional<Lease> fork(const Lease& lease);
  // Ends a sequence whose last tokens nobody will ask for again.
  void discard(Lease lease);

  // Keeps the blocks of a sequence after it has ended; its last tokens are sealed short. nullopt:
  // over the cap on pinned blocks, or there is nothing to keep.
  std::optional<Pin> pin(const Lease& lease);

  // Forgets everything cached. Refused while sequences or pins are open.
  ResetResult reset();

  // Where the sequence's tokens lie, reserved slots included. Valid until the next call that
  // changes this lease or reserves.
  View view(const Lease& lease) const;
  uint32_t tokens(const Lease& lease) const;  // whose keys and values are there

  // What "now" is, for ages.
  void set_now(uint64_t now_us) { index_.set_now(now_us); }
  const BlockLayout& layout(uint32_t group = 0) const { return layouts_[group]; }
  CacheMode mode() const { return options_.mode; }
  CacheStats stats() const;
  // Of all blocks, by group.
  std::vector<std::vector<BlockState>> block_states() const;

  // Counts every reference anew and, with `repair`, mends what is wrong.
  AuditReport audit(bool repair);
  // Aborts where the books do not balance. O(capacity + tables).
  void check_invariants();

 private:
  friend class Lease;
  friend class Reservation;
  friend class Pin;
  friend struct CacheTesting;

  // Block table of one group.
  //   blocks: 0 ..... first ..... blocks.size()
  //           | left  | held: a reference each |     (only sliding windows leave any)
  struct GroupTable {
    uint32_t first = 0;
    std::vector<BlockId> blocks;
    std::vector<std::byte*> pointers;  // data(blocks[i]); nullptr below `first`
  };

  // One sequence.
  //   tokens: 0 ......... sealed blocks ......... tokens.size() ..... slots
  //           |- chain, shared ------| filling --| reserved ---------|
  struct Table {
    bool open = false;
    bool indexed = false;   // its blocks may be sealed and found by others
    bool reserved = false;  // a Reservation lives
    Retention retention = Retention::kNormal;
    uint32_t prompt_tokens = 0;
    uint32_t branch_tokens = 0;       // where it left what was cached before it
    uint32_t slots = 0;               // tokens that may be written: more than tokens while reserved
    uint32_t sealed = 0;              // leading blocks whose nodes are in chain and have bytes
    std::optional<uint32_t> encoder;  // entry of encoders_
    std::optional<NodeId> root;
    std::optional<NodeId> borrowed;  // owns the last block, whose first slots are shared
    bool stale_tail = false;  // the last block, shared when it was truncated, may hold more rows
    std::vector<TokenId> tokens;
    std::vector<NodeId> chain;  // [sealed] of the sealed blocks, then those promised
    std::array<GroupTable, kGroupsMax> groups;
    std::vector<GroupView> views;
  };

  // A walk down the tree. `chain` lies in match_chain_.
  struct Match {
    std::optional<NodeId> root;
    uint32_t domain_tag = 0;                     // of the root, whether it is there or not
    std::optional<PrefixIndex::Shared> partial;  // child of the last node of the chain
    uint32_t blocks = 0;                         // full blocks in match_chain_
    uint32_t tokens = 0;
    uint32_t tokens_full_group = 0;  // before sliding windows shortened it
  };

  Cache(const CacheOptions& options, std::vector<BlockLayout> layouts, BlockPool pool);
  uint32_t block_tokens() const { return options_.block_tokens; }
  uint32_t groups() const { return static_cast<uint32_t>(layouts_.size()); }
  // Groups whose blocks hold tokens of the sequence; those of encoders follow them.
  uint32_t token_groups() const { return token_groups_; }
  const GroupShape& shape(uint32_t group) const { return layouts_[group].group(); }
  bool shares() const { return options_.mode == CacheMode::kPaged; }
  Table& table_of(const Lease& lease);
  const Table& table_of(const Lease& lease) const;
  uint32_t first_needed(uint32_t group, uint32_t tokens) const;
  std::span<const TokenId> block_of(std::span<const TokenId> tokens, uint32_t block) const;
  uint32_t run_blocks(uint32_t tokens_max) const;

  // cache_match.cc: what is there.
  Match match(const SequenceSpec& spec);
  uint32_t servable(const Match& match) const;
  std::optional<NodeId> child_of(NodeId parent, std::span<const TokenId> tokens) const;
  bool is_computed(NodeId node) const;
  MatchReport report(const SequenceSpec& spec, const Match& match) const;
  bool diverges(const Match& match) const;

  // cache.cc: tables.
  std::optional<uint32_t> claim_table(const SequenceSpec& spec);
  bool take_run(Table& table, uint32_t count);
  void adopt_match(Table& table, const Match& match);
  void promise_rest(uint32_t table, std::span<const TokenId> prompt);
  void close(uint32_t table, bool seals_tail);
  void end_reservation(uint32_t table);
  void refresh_views(Table& table);
  void note_sharing();

  // cache_blocks.cc: memory.
  bool make_room(Table& table, uint32_t tokens, uint32_t keep_back);
  std::optional<BlockId> take_block(uint32_t group);
  bool evict_one(uint32_t group);
  void free_cached(BlockId block);
  bool steal_slab(uint32_t group);
  std::optional<uint32_t> slab_to_steal(uint32_t for_group) const;
  void relocate(BlockId from, BlockId to);
  bool is_private(const Table& table, uint32_t block) const;
  bool tail_is_private(const Table& table) const;
  bool push_free_block(Table& table, uint32_t group);
  bool copy_shared_tail(Table& table);
  bool take_over_tail(Table& table);
  void clear_private_tail(Table& table);
  void add_block_reference(BlockId block);
  void release_block(BlockId block, Worth worth);
  void release_blocks_from(Table& table, uint32_t first);
  void leave_window(Table& table);
  uint32_t available(uint32_t group) const;
  void push_block(Table& table, uint32_t group, BlockId block);

  // cache_seal.cc: from private to shared, and back to nothing.
  void seal_full_blocks(uint32_t table);
  bool seal_block(uint32_t table, uint32_t block);
  void seal_tail(Table& table);
  std::optional<NodeId> make_node(std::optional<NodeId> parent, const Digest& digest,
                                  std::span<const TokenId> tokens);
  std::optional<NodeId> node_for(std::optional<NodeId> parent, std::span<const TokenId> tokens);
  void give_bytes(Table& table, uint32_t block, NodeId node);
  void drop_superseded(NodeId parent, std::span<const TokenId> tokens);
  void drop_node(NodeId node);
  void drop_subtree(NodeId node, uint32_t group);
  void drop_descendants(NodeId node);
  void erase_if_empty(std::optional<NodeId> node);
  void withdraw_promises(uint32_t table);

  // cache_share.cc: forks and pins.
  bool copy_run(const Table& from, Table& to, uint32_t entries);
  void pin_node(NodeId node);
  void unpin(NodeId last);

  // cache_encoder.cc: cross-attention.
  bool attach_encoder(Table& table, const SequenceSpec& spec);
  std::optional<uint32_t> make_encoder_entry(const Digest& digest, const SequenceSpec& spec);
  void detach_encoder(Table& table);
  void drop_encoder_entry(uint32_t entry);
  void check_encoders() const;

  // cache_audit.cc: the books.
  std::vector<uint32_t> count_block_references() const;
  std::vector<uint32_t> count_node_references() const;
  void check_table(const Table& table) const;
  void check_owners() const;

  CacheOptions options_;
  std::vector<BlockLayout> layouts_;  // by group
  BlockPool pool_;
  PrefixIndex index_;
  SeenTable seen_;
  std::vector<EvictionQueue> queues_;          // by group
  std::vector<std::optional<NodeId>> owners_;  // by block: the node whose bytes it holds
  std::vector<Table> tables_;
  std::vector<uint32_t> free_tables_;
  std::vector<uint32_t> pinned_blocks_;  // by group
  uint32_t token_groups_;
  EncoderCache encoders_;
  CacheStats totals_;  // the counters of it
  uint32_t logical_blocks_ = 0;

  // Scratch of one call.
  std::vector<NodeId> match_chain_;
  std::vector<BlockId> moving_;
};

}  // namespace kvasir::kv
