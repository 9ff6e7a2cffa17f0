// One forward pass over a ragged batch: the seam between the engine and the mathematics. The
// transformer implements it; simulations implement it with a hash.
//
// Thread: engine thread only. Allocates: never in forward().
#pragma once

#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/span2d.h"
#include "kv/view.h"

namespace kvasir::model {

// Consecutive tokens of one sequence inside a batch: a prefill chunk or one decode row.
//
//   positions: 0 ........ first_position ........ first_position + tokens
//              |- in the cache already -|- rows of this batch, written to the cache by forward() -|
struct SequenceRows {
  kv::View view;           // has slots for every position below first_position + tokens
  uint32_t first_row = 0;  // in the batch
  uint32_t tokens = 0;     // >= 1
  uint32_t first_position = 0;
  uint64_t kv_rows_written = 0;  // out: tokens whose K and V rows forward() wrote, times layers
};

struct Batch {
  std::span<const TokenId> tokens;       // [rows]
  std::span<SequenceRows> sequences;     // rows in order, without gaps
  std::span<const uint32_t> logit_rows;  // ascending rows whose logits are wanted
};

// What a model can be asked for at once. Buffers are sized from it at creation.
struct BatchLimits {
  uint32_t rows_max = 0;  // tokens of a batch
  uint32_t sequences_max = 0;
  uint32_t logit_rows_max = 0;
};

// An encoder's input and where its keys and values go.
struct EncoderInput {
  std::span<const TokenId> tokens;
  kv::View view;  // its groups of kind kCross have slots for all tokens
};

class Model {
 public:
  virtual ~Model() = default;

  // Writes K and V of every row to the cache, then logits[i] for logit_rows[i].
  //   logits  [logit_rows.size(), vocab_size]
  // The logits of a row depend on the tokens up to it and on nothing else.
  virtual void forward(const Batch& batch, base::Span2D<float> logits) = 0;

  // Writes the keys and values that the decoder's rows read by cross-attention.
  // Requires: has_encoder().
  virtual void encode(const EncoderInput& input) = 0;
  virtual bool has_encoder() const = 0;

  virtual uint32_t vocab_size() const = 0;
  virtual uint32_t layers() const = 0;
};

}  // namespace kvasir::model
