// Random operations on the cache against a naive twin. The twin keeps the tokens of every sequence
// and of everything that was ever published; after each operation every byte of every open
// sequence is read again and the books are checked.
#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <ostream>

#include "kv/testing.h"

namespace kvasir::kv {
namespace {

enum class Kind : uint8_t {
  kOpen,
  kExtend,
  kFork,
  kTruncate,
  kDiscard,
  kDrop,
  kPin,
  kUnpin,
  kReset,
  kReserveAndGiveBack,
};

// What the numbers mean depends on the operation and on what is open when its turn comes, so that
// a list of operations stays valid while RapidCheck removes some of them.
struct Operation {
  Kind kind = Kind::kOpen;
  uint8_t which = 0;
  uint8_t cut = 0;
  uint8_t piece = 0;
};

// RapidCheck looks for this name.
void showValue(const Operation& operation,  // NOLINT(readability-identifier-naming)
               std::ostream& out) {
  out << "{" << int{static_cast<uint8_t>(operation.kind)} << ", " << int{operation.which} << ", "
      << int{operation.cut} << ", " << int{operation.piece} << "}";
}

rc::Gen<std::vector<Operation>> operations() {
  const auto byte = rc::gen::cast<uint8_t>(rc::gen::inRange(0, 256));
  const auto kind = rc::gen::weightedElement<Kind>({{6, Kind::kOpen},
                                                    {9, Kind::kExtend},
                                                    {3, Kind::kFork},
                                                    {2, Kind::kTruncate},
                                                    {1, Kind::kDiscard},
                                                    {4, Kind::kDrop},
                                                    {1, Kind::kPin},
                                                    {1, Kind::kUnpin},
                                                    {1, Kind::kReset},
                                                    {1, Kind::kReserveAndGiveBack}});
  return rc::gen::scale(
      3.0, rc::gen::container<std::vector<Operation>>(rc::gen::build<Operation>(
               rc::gen::set(&Operation::kind, kind), rc::gen::set(&Operation::which, byte),
               rc::gen::set(&Operation::cut, byte), rc::gen::set(&Operation::piece, byte))));
}

// A run of one of three tokens: few and long, so that texts often begin alike.
std::vector<TokenId> piece_of(uint8_t seed) {
  constexpr std::array<uint32_t, 8> kLengths = {1, 2, 5, 15, 16, 17, 31, 32};
  return std::vector<TokenId>(kLengths[seed % 8], TokenId{seed / 8 % 3});
}

// What others may find: whole texts for certain, or perhaps.
struct Published {
  std::vector<std::vector<TokenId>> certain;
  std::vector<std::vector<TokenId>> possible;
};

uint32_t longest_match(const std::vector<std::vector<TokenId>>& texts,
                       std::span<const TokenId> prompt) {
  size_t longest = 0;
  for (const auto& text : texts) {
    const auto differs = std::ranges::mismatch(text, prompt).in1;
    longest = std::max(longest, static_cast<size_t>(differs - text.begin()));
  }
  return static_cast<uint32_t>(std::min(longest, prompt.size() - 1));
}

class CacheModel {
 public:
  // `nothing_is_evicted`: the pool is large, so that hits must be the longest possible.
  CacheModel(const CacheOptions& options, bool nothing_is_evicted)
      : options_(options), exact_(nothing_is_evicted), cache_(make_cache(options)) {}

  void apply(const Operation& operation) {
    cache_->set_now(++now_us_);
    switch (operation.kind) {
      case Kind::kOpen:
        open(operation);
        break;
      case Kind::kUnpin:
        if (!pins_.empty()) pins_.erase(pins_.begin() + operation.which % pins_.size());
        break;
      case Kind::kReset:
        reset();
        break;
      default:
        if (!open_.empty()) apply_to(operation.which % open_.size(), operation);
        break;
    }
    check();
  }
  // Ends everything: nothing may be left.
  void finish() {
    while (!open_.empty()) drop(open_.size() - 1);
    pins_.clear();
    check();
    reset();
    const CacheStats stats = cache_->stats();
    RC_ASSERT(stats.nodes == 0U);
    RC_ASSERT(stats.blocks_logical == 0U);
    for (const GroupStats& group : stats.groups) {
      RC_ASSERT(group.blocks.of(BlockState::kFree) == group.blocks.capacity());
    }
  }

 private:
  struct Open {
    TestSequence sequence;
    // Tokens whose last block may be shared with a fork, unsealed: not published at the end.
    size_t shared_tail = 0;
  };

  void open(const Operation& operation) {
    std::vector<TokenId> prompt;
    if (!texts_.empty()) {
      const auto& text = texts_[operation.which % texts_.size()];
      prompt = prefix(text, operation.cut % (text.size() + 1));
    }
    prompt = prompt + piece_of(operation.piece);
    if (prompt.size() > kTokensMax) prompt.resize(kTokensMax);
    texts_.push_back(prompt);
    const SequenceSpec spec{.domain = tenant(operation.piece > 240 ? 1 : 0),
                            .prompt = prompt,
                            .retention = static_cast<Retention>(operation.cut % 3),
                            .reads_cache = operation.cut != 255};
    const uint32_t seen_before = cache_->probe(spec).tokens_cached;
    std::optional<TestSequence> sequence = TestSequence::open(*cache_, spec);
    RC_ASSERT(sequence.has_value() == (open_.size() < options_.sequences_max));
    if (!sequence) return;
    RC_ASSERT(seen_before == sequence->match.tokens_cached);
    check_match(spec, sequence->match);
    open_.push_back({.sequence = *std::move(sequence)});
  }

  void check_match(const SequenceSpec& spec, const MatchReport& match) {
    uint32_t explained = match.tokens_cached;
    for (const uint32_t tokens : match.missed) explained += tokens;
    RC_ASSERT(explained == spec.prompt.size());
    if (!spec.reads_cache) {
      RC_ASSERT(match.tokens_cached == 0U);
      return;
    }
    const Published& known = published_[spec.domain.tenant[0]];
    RC_ASSERT(match.tokens_cached <= longest_match(known.possible, spec.prompt));
    if (exact_) RC_ASSERT(match.tokens_cached >= longest_match(known.certain, spec.prompt));
  }

  void apply_to(size_t index, const Operation& operation) {
    Open& chosen = open_[index];
    TestSequence& sequence = chosen.sequence;
    switch (operation.kind) {
      case Kind::kExtend:
        extend(chosen, operation.piece);
        break;
      case Kind::kFork:
        fork(index);
        break;
      case Kind::kTruncate:
        truncate(chosen, operation.cut);
        break;
      case Kind::kDiscard:
        publish(sequence, sequence.tokens.size() / kTestBlockTokens * kTestBlockTokens, true);
        sequence.discard();
        open_.erase(open_.begin() + static_cast<ptrdiff_t>(index));
        break;
      case Kind::kDrop:
        drop(index);
        break;
      case Kind::kPin:
        // It seals the last tokens, also where the pin itself is refused.
        publish(sequence, sequence.tokens.size(), /*certain=*/false);
        if (std::optional<Pin> pin = cache_->pin(sequence.lease)) pins_.push_back(*std::move(pin));
        break;
      default:
        reserve_and_give_back(sequence, operation.piece);
        break;
    }
  }

  // The prompt must be computed before anything else follows it.
  void extend(Open& chosen, uint8_t seed) {
    TestSequence& sequence = chosen.sequence;
    std::vector<TokenId> more = piece_of(seed);
    const size_t at = sequence.tokens.size();
    if (at < sequence.prompt.size()) {
      more.resize(std::min(more.size(), sequence.prompt.size() - at));
      std::copy_n(sequence.prompt.begin() + static_cast<ptrdiff_t>(at), more.size(), more.begin());
    }
    more.resize(std::min(more.size(), kTokensMax - at));
    const uint32_t wanted = static_cast<uint32_t>(more.size()) / kTestBlockTokens + 2;
    const bool must_fit = options_.groups.size() == 1 && cache_->blocks_available() >= wanted;
    const bool fits = sequence.extend(more);
    RC_ASSERT(fits || !must_fit);
    if (!fits) return;
    if (!more.empty()) chosen.shared_tail = 0;
    texts_.push_back(sequence.tokens);
    if (options_.publish == Publish::kWhenFinished) return;
    publish(sequence, sequence.tokens.size() / kTestBlockTokens * kTestBlockTokens, true);
  }

  void fork(size_t index) {
    std::optional<TestSequence> copy = open_[index].sequence.fork();
    RC_ASSERT(copy.has_value() == (open_.size() < options_.sequences_max));
    if (!copy) return;
    open_[index].shared_tail = copy->tokens.size();
    open_.push_back({.sequence = *std::move(copy), .shared_tail = open_[index].shared_tail});
  }

  // Not back to where a window needs blocks that it has let go of.
  void truncate(Open& chosen, uint8_t cut) {
    TestSequence& sequence = chosen.sequence;
    const auto size = static_cast<uint32_t>(sequence.tokens.size());
    uint32_t tokens = cut % (size + 1);
    for (const GroupShape& group : options_.groups) {
      if (first_read(group, tokens) / kTestBlockTokens <
          first_read(group, size) / kTestBlockTokens) {
        tokens = 0;
      }
    }
    sequence.truncate(tokens);
    if (tokens < chosen.shared_tail) chosen.shared_tail = tokens;
  }

  void drop(size_t index) {
    const Open& ending = open_[index];
    const TestSequence& sequence = ending.sequence;
    publish(sequence, sequence.tokens.size(), ending.shared_tail == 0);
    publish(sequence, sequence.tokens.size() / kTestBlockTokens * kTestBlockTokens, true);
    open_.erase(open_.begin() + static_cast<ptrdiff_t>(index));
  }

  void reserve_and_give_back(const TestSequence& sequence, uint8_t seed) {
    const auto size = static_cast<uint32_t>(sequence.tokens.size());
    const uint32_t tokens = std::min(size + seed % 32U, kTokensMax);
    const uint32_t held = sequence.blocks_held();
    if (const auto reservation = cache_->reserve(sequence.lease, tokens)) {
      RC_ASSERT(sequence.blocks_held() == cache_->blocks_for(tokens));
    }
    RC_ASSERT(sequence.blocks_held() == held);
  }

  void publish(const TestSequence& sequence, size_t tokens, bool certain) {
    Published& known = published_[sequence.domain.tenant[0]];
    known.possible.push_back(prefix(sequence.tokens, tokens));
    if (certain) known.certain.push_back(prefix(sequence.tokens, tokens));
  }

  void reset() {
    const ResetResult result = cache_->reset();
    RC_ASSERT(result.done == (open_.empty() && pins_.empty()));
    RC_ASSERT(result.sequences_open == open_.size());
    if (result.done) published_ = {};
  }

  void check() {
    cache_->check_invariants();
    for (const Open& open : open_) {
      RC_ASSERT(cache_->tokens(open.sequence.lease) == open.sequence.tokens.size());
      RC_ASSERT(open.sequence.bytes_are_right());
    }
  }

  static constexpr uint32_t kTokensMax = 112;

  CacheOptions options_;
  bool exact_;
  std::unique_ptr<Cache> cache_;
  std::vector<Open> open_;
  std::vector<Pin> pins_;
  std::array<Published, 2> published_;  // by tenant
  std::vector<std::vector<TokenId>> texts_;
  uint64_t now_us_ = 0;
};

void run(const CacheOptions& options, bool nothing_is_evicted, const std::vector<Operation>& list) {
  CacheModel model(options, nothing_is_evicted);
  for (const Operation& operation : list) model.apply(operation);
  model.finish();
}

RC_GTEST_PROP(CacheModel, one_group_under_pressure, ()) {
  run(test_options(*rc::gen::inRange(7U, 25U)), false, *operations());
}

RC_GTEST_PROP(CacheModel, one_group_under_pressure_with_colliding_digests, ()) {
  CacheOptions options = test_options(*rc::gen::inRange(7U, 25U));
  options.digest = eight_bit_digest;
  run(options, false, *operations());
}

RC_GTEST_PROP(CacheModel, hits_are_the_longest_possible_while_nothing_is_evicted, ()) {
  run(test_options(1000), true, *operations());
}

RC_GTEST_PROP(CacheModel, published_only_when_finished, ()) {
  CacheOptions options = test_options(*rc::gen::inRange(7U, 25U));
  options.publish = Publish::kWhenFinished;
  run(options, false, *operations());
}

RC_GTEST_PROP(CacheModel, full_and_window_groups_under_pressure, ()) {
  run(windowed_options(*rc::gen::inRange(5U, 13U)), false, *operations());
}

RC_GTEST_PROP(CacheModel, full_and_window_groups_with_colliding_digests, ()) {
  CacheOptions options = windowed_options(*rc::gen::inRange(5U, 13U));
  options.digest = eight_bit_digest;
  run(options, false, *operations());
}

}  // namespace
}  // namespace kvasir::kv
