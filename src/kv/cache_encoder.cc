// Cross-attention: the keys and values of an encoder's input, computed once and read by every
// decoder that asks about the same input.
#include <algorithm>

#include "base/check.h"
#include "kv/cache.h"

namespace kvasir::kv {

// Gives the table the blocks of its encoder input: those of an earlier request, or new ones that
// are to be written. False, not now: no room; the table has none then.
bool Cache::attach_encoder(Table& table, const SequenceSpec& spec) {
  CHECK(token_groups() < groups());
  const std::span<const TokenId> input = spec.encoder;
  const Digest root = index_.digest_after(index_.seed(), words_of(spec.domain));
  const Digest digest = index_.digest_after(root, input);
  std::optional<uint32_t> found = encoders_.find(digest, spec.domain, input);
  if (found) {
    ++totals_.encoder_inputs_shared;
  } else {
    found = make_encoder_entry(digest, spec);
    if (!found) return false;
    ++totals_.encoder_inputs_computed;
  }
  EncoderCache::Entry& entry = encoders_.entry(*found);
  for (uint32_t g = token_groups(); g < groups(); ++g) {
    for (const BlockId block : entry.blocks[g]) {
      // Blocks taken just now carry their first user's reference already.
      if (entry.users > 0 || entry.ready) pool_.add_reference(block);
      push_block(table, g, block);
    }
    table.views[g].tokens = static_cast<uint32_t>(input.size());
  }
  encoders_.add_user(*found);
  table.encoder = found;
  return true;
}

std::optional<uint32_t> Cache::make_encoder_entry(const Digest& digest, const SequenceSpec& spec) {
  const std::span<const TokenId> input = spec.encoder;
  std::optional<uint32_t> made = encoders_.insert(digest, spec.domain, input);
  if (!made) {
    const std::optional<uint32_t> oldest = encoders_.oldest_idle();
    if (!oldest) return std::nullopt;
    drop_encoder_entry(*oldest);
    made = encoders_.insert(digest, spec.domain, input);
  }
  encoders_.add_user(*made);  // so that making room does not take it
  bool complete = true;
  const uint32_t count = blocks_for(static_cast<uint32_t>(input.size()));
  for (uint32_t g = token_groups(); g < groups() && complete; ++g) {
    for (uint32_t i = 0; i < count && complete; ++i) {
      const std::optional<BlockId> block = take_block(g);
      complete = block.has_value();
      if (!block) break;
      pool_.clear(*block);
      encoders_.entry(*made).blocks[g].push_back(*block);
    }
  }
  encoders_.drop_user(*made);
  if (complete) return made;
  for (std::vector<BlockId>& blocks : encoders_.entry(*made).blocks) {
    for (const BlockId block : blocks) {
      CHECK(pool_.drop_reference(block));
      pool_.free(block);
    }
    blocks.clear();
  }
  encoders_.erase(*made);
  return std::nullopt;
}

bool Cache::needs_encoding(const Lease& lease) const {
  const Table& table = table_of(lease);
  return table.encoder && !encoders_.entry(*table.encoder).ready;
}

std::span<const TokenId> Cache::encoder_input(const Lease& lease) const {
  return encoders_.entry(*table_of(lease).encoder).tokens;
}

void Cache::encoded(const Lease& lease) {
  EncoderCache::Entry& entry = encoders_.entry(*table_of(lease).encoder);
  CHECK(!entry.ready);
  for (const std::vector<BlockId>& blocks : entry.blocks) {
    for (const BlockId block : blocks) pool_.seal(block);
  }
  entry.ready = true;
}

// The entry stays for the next request, unless it was never written.
void Cache::detach_encoder(Table& table) {
  if (!table.encoder) return;
  const uint32_t index = *std::exchange(table.encoder, std::nullopt);
  EncoderCache::Entry& entry = encoders_.entry(index);
  for (uint32_t g = token_groups(); g < groups(); ++g) {
    GroupTable& group = table.groups[g];
    logical_blocks_ -= static_cast<uint32_t>(group.blocks.size());
    for (const BlockId block : group.blocks) {
      if (!pool_.drop_reference(block)) continue;
      if (entry.ready) {
        pool_.cache(block);
      } else {
        pool_.free(block);
      }
    }
    group.blocks.clear();
    group.pointers.clear();
    table.views[g].tokens = 0;
    if (!entry.ready && entry.users == 1) entry.blocks[g].clear();
  }
  encoders_.drop_user(index);
  if (!entry.ready && entry.users == 0) encoders_.erase(index);
}

void Cache::drop_encoder_entry(uint32_t index) {
  EncoderCache::Entry& entry = encoders_.entry(index);
  for (uint32_t g = token_groups(); g < groups(); ++g) {
    for (const BlockId block : entry.blocks[g]) {
      pool_.free(block);
      ++totals_.groups[g].evicted;
    }
    entry.blocks[g].clear();
  }
  encoders_.erase(index);
}

void Cache::check_encoders() const {
  for (uint32_t i = 0; i < encoders_.size(); ++i) {
    const EncoderCache::Entry& entry = encoders_.entry(i);
    const auto users = static_cast<uint32_t>(
        std::ranges::count_if(tables_, [&](const Table& t) { return t.encoder == i; }));
    CHECK(entry.users == users);
    for (const std::vector<BlockId>& blocks : entry.blocks) {
      CHECK(entry.exists || blocks.empty());
      for (const BlockId block : blocks) {
        CHECK(pool_.references(block) == users);
        const BlockState state = pool_.state(block);
        CHECK(state == (!entry.ready ? BlockState::kFilling
                        : users > 0  ? BlockState::kSealed
                                     : BlockState::kCached));
      }
    }
  }
}

}  // namespace kvasir::kv
