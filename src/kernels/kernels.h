// The vocabulary of compute: pure functions on spans, one table of them per instruction set.
// Every table gives the same bits: kernels/reference.cc is the definition, the others are tested
// for equality with it. The rules that make it so:
//
//   * only IEEE operations: +, -, *, /, fma, min/max, round to nearest even; no libm;
//   * one accumulator per output, terms added in a fixed order, whatever the tile or the ISA;
//   * horizontal sums use 16 virtual lanes: lane j takes elements j, j+16, j+32, ... in ascending
//     order, then lanes are folded 8, 4, 2, 1 (lane j += lane j+8, ...); a tail is padded with
//     zeros;
//   * max(a, b) is a > b ? a : b;
//   * everything runs inside base::ScopedFpEnv.
//
// Numbers that are not finite are nobody's error here: they come out as NaN or infinity, and only
// the payload of a NaN may differ between tables.
//
// Thread: kernels are reentrant; callers split work so that outputs are disjoint.
// Allocates: never.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/span2d.h"
#include "quant/activations.h"
#include "quant/kv_tile.h"
#include "quant/packed.h"

namespace kvasir::kernels {

enum class Isa : uint8_t { kReference, kAvx2, kAvxVnni, kAvx512, kAvx512Bf16, kAmx, kNeon };

// In which order attention over kBF16 adds up. Each order has its own bits, the same on every
// processor, so nothing computed in one is ever mixed with the other.
enum class AttentionOrder : uint8_t {
  kPairs,  // pair by pair, as vectors do: attend
  kTiles,  // as matrix tiles do: attend_tiles
};

// Panels [begin, end) of a packed matrix: output features 32 * begin .. 32 * end - 1.
struct PanelRange {
  size_t begin = 0;
  size_t end = 0;
};

// Pieces in which a stage's panels are handed out: about four for each thread, so that all end
// together, and still long enough to stream. Best are as many for one thread as for the other.
constexpr size_t panels_at_once(size_t panels, size_t threads) {
  constexpr size_t kPiecesPerThread = 4;
  const size_t most = (panels + kPiecesPerThread * threads - 1) / (kPiecesPerThread * threads);
  for (size_t piece = most; 2 * piece > most; --piece) {
    if (panels % (piece * threads) == 0) return piece;
  }
  return most > 1 ? most - 1 : 1;
}

// Attention of some neighbouring queries of one sequence over one KV head.
//
// For each query row (token t at absolute position p = first_position + t, query head g):
//   visible keys are b..p, b = max(0, p - window + 1), or 0 without a window; others are masked.
//   For each span of 512 positions that has a visible key, ascending, (m, l, o) = (-inf, 0, 0);
//   for each step of 32 keys inside the span that has a visible key:
//     s[j] = dot(q, k[j]) * scale                     masked keys: excluded from max, p = 0
//                                                     kInt8: another s; soft cap: see below
//     m'   = max(m, s[0..31]);  a = exp(m - m')
//     p[j] = exp(s[j] - m')                           kBF16: rounded to bf16
//     l    = fma(l, a, sum of p[0..31])               lanes: p[j] + p[j+16], then fold 8, 4, 2, 1
//     o[d] = o[d] * a, then fma(p[j], v[j][d], o[d])  for the visible keys in order
//   spans are merged in ascending order: M = max(m1, m2), e1 = exp(m1 - M), e2 = exp(m2 - M),
//     l = fma(l2, e2, l1 * e1), o = fma(o2, e2, o1 * e1); the first one that has a visible key is
//     taken as it is;
//   out = o * (1 / l).
// A step or a span in which a row sees nothing is none of this row's, whatever those beside it see.
// kBF16: q is rounded to bf16 first. Order inside dot: kF32 ascending; kBF16 pairs ascending, in
// each pair the odd element before the even one. Order of keys in o: the same rule over keys.
// The accumulator of a dot starts at 0 and takes one fma per element.
// kInt8: q becomes codes and a scale first, as a key does (quant/kv_tile.h); its scale is divided
// by quant::key_mix_gain, and
//     isum = sum of q_code[d] * k_code[d]             exactly, in int32
//     s[j] = (float)isum * ((q_scale * scale) * k_scale[j])
//     o[d] = fma(p[j] * v_scale[j], (float)v_code[j][d], o[d])  keys ascending; l sums the p[j]
// Masked keys are left out of o, not added with weight zero, so the bytes of other slots (another
// row's keys and scales, or whatever lies there) can not change a bit, not even the sign of a zero.
// Blocks in which no row sees a key are not read; their entries may be nullptr.
// soft_cap: s[j] becomes soft_cap * tanh(s[j] / soft_cap), before masks and whatever the dtype:
//     y = s[j] / soft_cap;  t = 1 - 2 / (exp(y + y) + 1);  s[j] = soft_cap * t
// exp saturates above 88.3 and is 0 below -87.3: there t is 1 and -1. So |t| <= 1, also for an
// infinite y; NaN stays NaN. The error of t is below 8 * 2^-24, of 1 and not of t.
// attend_tiles, kBF16: sums in the order of matrix tiles, with two chains of fmas from 0, one over
// even and one over odd places:
//   dot  = dot + (even + odd)              for chunks of 32 dimensions; the last may have 16
//   o[d] = (o[d] * a + 0) + (even + odd)   over the keys of the step, masked ones left out
// Adding zero makes -0 a +0, so that the sign of a zero which others would have added can not show.
// The sum is that of TDPBF16PS in Intel's Software Developer's Manual.
// Online softmax: Milakov & Gimelshein, arXiv:1805.02867; tiling: Dao et al., arXiv:2205.14135.
// Windows: Beltagy et al., "Longformer", arXiv:2004.05150; in all layers of Mistral 7B (4096,
// arXiv:2310.06825), in some of Gemma 2 (4096, arXiv:2408.00118) and Gemma 3 (1024, or 512 in the
// smallest, arXiv:2503.19786). Soft cap: Gemma 2 (50).
//
// Spans do not depend on each other, so attention without a window may be parted at a border
// between two of them, and the bits are those of one call:
//   keys_common  queries of sequences that begin with the same blocks, all of whose keys
//                [keys_done, keys_common) every query sees: leaves `out` undivided, m and l in
//                `sums`
//   keys_done    takes these up and goes on
// Rows that share tiles this way read them once. As Hydragen (Juravsky et al., arXiv:2402.05099)
// and cascade attention in FlashInfer do, but for the order of merging, which is that of one call.
struct AttentionSums {
  float m;
  float l;
};
struct AttentionArgs {
  quant::KvTileShape tile;
  const std::byte* const* blocks = nullptr;  // [ceil((first_position + tokens) / block_tokens)]
  size_t key_offset = 0;                     // of this (layer, KV head)'s K tile in every block
  size_t value_offset = 0;                   // of its V tile
  uint32_t first_position = 0;               // not read if keys_common > 0
  uint32_t tokens = 0;                       // query tokens
  uint32_t heads = 0;                        // query heads that share this KV head
  size_t token_stride = 0;                   // elements between tokens in queries and out
  const float* queries = nullptr;            // [tokens][heads][head_dim], after rope
  float* out = nullptr;                      // same shape
  float scale = 1.0F;
  uint32_t window = 0;            // keys that a query sees, its own included; 0: all up to its own
  float soft_cap = 0.0F;          // bound of the scores' magnitude, finite; 0: none
  uint32_t keys_done = 0;         // a multiple of kAttentionSpanKeys
  uint32_t keys_common = 0;       // 0, or a multiple of it and greater than keys_done
  AttentionSums* sums = nullptr;  // [tokens][heads], where one of the two is not 0
};

// Query tokens of one work item of attention: enough to share every read of a K or V tile.
constexpr uint32_t kAttentionItemTokens = 16;
constexpr uint32_t kAttentionStepKeys = 32;
constexpr uint32_t kAttentionSpanKeys = 512;
constexpr uint32_t kMaxHeadDim = 256;

// exp and the sum of exps of one row of logits.
struct SoftmaxStats {
  float max = 0.0F;
  float sum_exp = 0.0F;  // sum of exp(x - max), 16-lane order
};

struct KernelTable {
  Isa isa = Isa::kReference;

  // y = x / sqrt(mean(x^2) + epsilon) * weight. The mean is sum16(x * x by fma) / n, then
  // 1 / sqrt(.) as two IEEE operations; y[i] = x[i] * r * weight[i] in that order. y may be x.
  void (*rms_norm)(std::span<const float> x, std::span<const float> weight, float epsilon,
                   std::span<float> y);

  // Rotates neighbouring pairs (x[2i], x[2i+1]) of each head by angle i.
  //   x [heads * head_dim], cos and sin [rotated / 2] with rotated <= head_dim
  //   x0' = fma(x0, cos, -(x1 * sin)), x1' = fma(x0, sin, x1 * cos)
  // Dimensions >= rotated stay as they are.
  void (*rope_pairs)(std::span<float> x, size_t head_dim, std::span<const float> cos,
                     std::span<const float> sin);

  // out = gate / (1 + exp(-gate)) * up. out may be gate.
  void (*silu_mul)(std::span<const float> gate, std::span<const float> up, std::span<float> out);

  // x += y
  void (*add)(std::span<float> x, std::span<const float> y);

  // Rows [first, last) of x [rows, columns] into `out` (see quant/activations.h). A group with a
  // NaN or an infinity gets a scale that is not finite, so products with it are not either.
  void (*quantize)(base::Span2D<const float> x, size_t first, size_t last,
                   const quant::QuantizedRows& out);

  // y[:, 32 * begin .. 32 * end) = x W^T for integer formats. Groups of 32 columns ascending, each
  // in two halves of 16 with an activation scale of their own:
  //   isum[h] = sum (code - zero) * q  exactly, in int32
  //   t       = fma(x_scale[1], (float)isum[1], x_scale[0] * (float)isum[0])
  //   acc     = fma(w_scale, t, acc)
  //   acc     = fma(w_min, x_sum, acc)                 formats with a minimum
  // from acc = 0.  y [x.rows, w.rows]
  void (*linear_q8)(const quant::PackedMatrix& w, const quant::QuantizedRows& x, PanelRange panels,
                    base::Span2D<float> y);

  // The same for float formats: acc = fma(w[k], x[k], acc) for k ascending from acc = 0.
  //   x [tokens, w.columns]
  void (*linear_f32)(const quant::PackedMatrix& w, base::Span2D<const float> x, PanelRange panels,
                     base::Span2D<float> y);

  void (*attend)(const AttentionArgs& args);
  void (*attend_tiles)(const AttentionArgs& args);  // the same, but for the order over kBF16
  auto attend_in(AttentionOrder order) const {
    return order == AttentionOrder::kTiles ? attend_tiles : attend;
  }

  // Largest logit; ties go to the lowest index; NaN never wins. Requires: not empty.
  size_t (*arg_max)(std::span<const float> logits);
  SoftmaxStats (*softmax_stats)(std::span<const float> logits);
  // out = exp(x) by the shared polynomial; inputs below -87.3 give 0, above 88.3 saturate, NaN
  // stays NaN. exp(0) is exactly 1.
  void (*exp)(std::span<const float> x, std::span<float> out);
};

std::string_view isa_name(Isa isa);  // "reference", "avx2", ...
std::optional<Isa> parse_isa(std::string_view name);
// The instruction sets this processor runs, slowest first; the reference always.
std::vector<Isa> supported_isas();
// nullptr: not supported on this processor or not in this build.
const KernelTable* find_kernels(Isa isa);
// The fastest supported one: the last, unless this processor's bf16 dots are slower than its fmas.
const KernelTable& best_kernels();

std::string_view attention_order_name(AttentionOrder order);  // "pairs", "tiles"
std::optional<AttentionOrder> parse_attention_order(std::string_view name);
// What this processor is fastest with: tiles where it has them.
AttentionOrder best_attention_order();

}  // namespace kvasir::kernels
