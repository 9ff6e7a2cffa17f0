// What of a prompt is cached, and why the rest is not.
#include <algorithm>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

std::string_view miss_reason_name(MissReason reason) {
  constexpr std::array<std::string_view, kMissReasons> kNames = {
      "never_seen", "evicted", "domain", "diverged", "window", "last_token", "not_allowed"};
  return kNames[static_cast<size_t>(reason)];
}

//   prompt: 0 ...... full blocks ...... | partial | ............ size - 1 | size
//           |- chain of nodes ----------|- child -|- not cached ----------| computed for its logits
Cache::Match Cache::match(const SequenceSpec& spec) {
  match_chain_.clear();
  Match found;
  if (!shares() || !spec.reads_cache) return found;
  const auto words = words_of(spec.domain, spec.encoder);
  const Digest root = index_.digest_after(index_.seed(), words);
  found.domain_tag = domain_tag_of(root);
  found.root = index_.find(std::nullopt, root, words);
  if (!found.root) return found;

  const auto limit = static_cast<uint32_t>(spec.prompt.size()) - 1;
  NodeId last = *found.root;
  while ((found.blocks + 1) * block_tokens() <= limit) {
    const std::optional<NodeId> next = child_of(last, block_of(spec.prompt, found.blocks));
    if (!next || !is_computed(*next)) break;
    match_chain_.push_back(*next);
    ++found.blocks;
    last = *next;
  }
  const uint32_t full = found.blocks * block_tokens();
  const auto rest = spec.prompt.subspan(full, std::min(limit - full, block_tokens()));
  if (!rest.empty()) found.partial = index_.closest_child(last, rest);
  found.tokens_full_group = full + (found.partial ? found.partial->tokens : 0);
  found.tokens = servable(found);
  return found;
}

std::optional<NodeId> Cache::child_of(NodeId parent, std::span<const TokenId> tokens) const {
  return index_.find(parent, index_.digest_after(index_.node(parent).digest, tokens), tokens);
}

// Not only promised, or evicted while the one that had promised it still lives.
bool Cache::is_computed(NodeId node) const {
  if (index_.node(node).promised_by) return false;
  for (uint32_t g = 0; g < token_groups(); ++g) {
    if (shape(g).kind == GroupKind::kFull && !index_.block(node, g)) return false;
  }
  return true;
}

// The longest position at which every group holds all that the next row reads. A missing block
// moves the position to its beginning; what stands before may then lack others.
uint32_t Cache::servable(const Match& match) const {
  uint32_t position = match.tokens_full_group;
  const auto first_gap = [&](uint32_t group) -> std::optional<uint32_t> {
    for (uint32_t i = blocks_for(position); i-- > first_needed(group, position);) {
      const NodeId node = i < match.blocks ? match_chain_[i] : match.partial->node;
      if (!index_.block(node, group)) return i;
    }
    return std::nullopt;
  };
  for (bool moved = true; moved && position > 0;) {
    moved = false;
    for (uint32_t g = 0; g < token_groups(); ++g) {
      const std::optional<uint32_t> gap = first_gap(g);
      if (!gap) continue;
      position = *gap * block_tokens();
      moved = true;
    }
  }
  return position;
}

MatchReport Cache::report(const SequenceSpec& spec, const Match& match) const {
  MatchReport how{.tokens_cached = match.tokens};
  const auto size = static_cast<uint32_t>(spec.prompt.size());
  if (!shares() || !spec.reads_cache) {
    how.missed_for(MissReason::kNotAllowed) = size;
    return how;
  }
  const uint32_t known = match.tokens_full_group;
  how.missed_for(MissReason::kWindow) = known - match.tokens;
  if (known > 0 && known == size - 1) {
    how.missed_for(MissReason::kLastToken) = 1;
    return how;
  }
  const NodeId* last = match.blocks > 0 ? &match_chain_[match.blocks - 1] : nullptr;
  uint64_t fingerprint = last != nullptr ? index_.node(*last).fingerprint : 0;
  uint32_t position = known;
  for (uint32_t i = match.blocks; (i + 1) * block_tokens() <= size; ++i) {
    fingerprint = fingerprint_chain(fingerprint, block_of(spec.prompt, i));
    const SeenTable::Answer answer = seen_.ask(fingerprint, match.domain_tag);
    if (answer != SeenTable::Answer::kEvictedHere && answer != SeenTable::Answer::kElsewhere) break;
    const uint32_t end = (i + 1) * block_tokens();
    how.missed_for(answer == SeenTable::Answer::kElsewhere ? MissReason::kDomain
                                                           : MissReason::kEvicted) +=
        end - position;
    position = end;
  }
  if (position == known && diverges(match)) {
    how.diverged_at = known;
    how.missed_for(MissReason::kDiverged) = size - position;
  } else {
    how.missed_for(MissReason::kNeverSeen) = size - position;
  }
  return how;
}

// Whether the cache goes on where the match ends, with another token. Different first tokens of
// different prompts are no divergence.
bool Cache::diverges(const Match& match) const {
  if (match.tokens_full_group == 0) return false;
  if (match.partial) return match.partial->tokens < index_.node(match.partial->node).tokens.size();
  return index_
      .first_child_with_bytes(match.blocks > 0 ? match_chain_[match.blocks - 1] : *match.root)
      .has_value();
}

Probe Cache::probe(const SequenceSpec& spec) {
  const Match found = match(spec);
  Probe result{.tokens_cached = found.tokens};
  result.blocks_wanted =
      blocks_for(static_cast<uint32_t>(spec.prompt.size())) - found.tokens / block_tokens();
  // Cached blocks that are matched are not available any more, either.
  for (uint32_t i = 0; i < blocks_for(found.tokens); ++i) {
    const NodeId node = i < found.blocks ? match_chain_[i] : found.partial->node;
    const std::optional<BlockRef> block = index_.block(node, 0);
    if (block && pool_.state(block->id) == BlockState::kCached) ++result.blocks_wanted;
  }
  if (!found.root || !spec.reads_cache) return result;
  NodeId last = found.blocks > 0 ? match_chain_[found.blocks - 1] : *found.root;
  for (uint32_t i = found.blocks; (i + 1) * block_tokens() <= spec.prompt.size(); ++i) {
    const std::optional<NodeId> next = child_of(last, block_of(spec.prompt, i));
    if (!next || !index_.node(*next).promised_by) break;
    result.promised = index_.ref(*next);
    result.tokens_promised += block_tokens();
    last = *next;
  }
  return result;
}

bool Cache::has_promised(const Lease& lease, NodeRef node) const {
  return !index_.is_stale(node) && index_.node(node.id).promised_by == lease.table_;
}

bool Cache::is_promised(NodeRef node) const {
  return !index_.is_stale(node) && index_.node(node.id).promised_by.has_value();
}

}  // namespace kvasir::kv
