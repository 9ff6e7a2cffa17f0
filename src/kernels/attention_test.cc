#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "kernels/attention_testing.h"

namespace kvasir::kernels {
namespace {

using quant::KvDtype;
using testing::Cache;
using testing::fast_isas;
using testing::full_cache;
using testing::kKvDtypes;
using testing::kUnit;
using testing::Random;
using testing::same_bits;
using testing::Sequence;
using testing::Shape;

class Attention : public testing::AttentionTest {};
INSTANTIATE_TEST_SUITE_P(InOrder, Attention, ::testing::ValuesIn(testing::kAttentionOrders),
                         testing::order_of);

TEST_P(Attention, every_shape_has_the_reference_bits) {
  Random random(31);
  for (const KvDtype dtype : kKvDtypes) {
    for (const auto& [head_dim, heads, positions] : {std::array<uint32_t, 3>{16, 1, 1},
                                                     {16, 5, 33},
                                                     {64, 3, 40},
                                                     {80, 9, 17},
                                                     {48, 3, 50},
                                                     {96, 3, 33},
                                                     {64, 7, 90},
                                                     {112, 9, 49},
                                                     {64, 1, 70},
                                                     {128, 4, 31},
                                                     {192, 3, 40},
                                                     {256, 2, 35}}) {
      const Sequence sequence(random, {dtype, head_dim, heads, positions});
      for (const uint32_t block_tokens : {16u, 32u}) {
        const Cache cache = full_cache(sequence, block_tokens);
        const std::vector<float> expected =
            cache.attend(kernel(Isa::kReference), sequence, 0, positions);
        for (const Isa isa : fast_isas()) {
          ASSERT_TRUE(same_bits(cache.attend(kernel(isa), sequence, 0, positions), expected))
              << isa_name(isa) << ' ' << quant::kv_dtype_name(dtype) << ' ' << head_dim << ' '
              << heads << ' ' << positions << " block " << block_tokens;
        }
      }
    }
  }
}

TEST_P(Attention, long_sequences_merge_spans_like_the_reference) {
  Random random(32);
  for (const KvDtype dtype : kKvDtypes) {
    const Sequence sequence(random, {dtype, 32, 3, 1100});
    const Cache cache = full_cache(sequence, 32);
    for (const auto& [first, last] :
         {std::pair<size_t, size_t>{511, 515}, {1020, 1026}, {1090, 1100}}) {
      const std::vector<float> expected =
          cache.attend(kernel(Isa::kReference), sequence, first, last);
      for (const Isa isa : fast_isas()) {
        ASSERT_TRUE(same_bits(cache.attend(kernel(isa), sequence, first, last), expected))
            << isa_name(isa) << ' ' << first;
      }
    }
  }
}

// As sequences do that begin with the same blocks: 1,024 keys in common, in one call or in two.
TEST_P(Attention, parts_of_it_give_the_bits_of_the_whole) {
  Random random(39);
  for (const KvDtype dtype : kKvDtypes) {
    const Sequence sequence(random, {dtype, 48, 3, 1100});
    const Cache cache = full_cache(sequence, 32);
    for (const auto& [first, last] : {std::pair<size_t, size_t>{1024, 1041}, {1099, 1100}}) {
      const std::vector<float> whole = cache.attend(kernel(Isa::kReference), sequence, first, last);
      for (const Isa isa : supported_isas()) {
        for (const uint32_t step : {512u, 1024u}) {
          std::vector<float> parts(whole.size());
          std::vector<AttentionSums> sums(3 * (last - first));
          AttentionArgs args = cache.args(sequence, first, last, parts.data());
          args.sums = sums.data();
          for (; args.keys_done < 1024; args.keys_done += step) {
            args.keys_common = args.keys_done + step;
            kernel(isa)(args);
          }
          args.keys_common = 0;
          kernel(isa)(args);
          EXPECT_TRUE(same_bits(parts, whole)) << isa_name(isa) << ' ' << first << ' ' << step;
        }
      }
    }
  }
}

TEST_P(Attention, a_chunk_gives_the_bits_of_token_by_token) {
  Random random(33);
  for (const KvDtype dtype : kKvDtypes) {
    const Sequence sequence(random, {dtype, 64, 3, 600});
    for (const Isa isa : fast_isas()) {
      Cache cache(sequence, 16);
      std::vector<float> one_by_one;
      for (size_t p = 0; p < 600; ++p) {
        cache.store(sequence, p, p + 1);  // later slots are still zero
        const std::vector<float> out = cache.attend(kernel(isa), sequence, p, p + 1);
        one_by_one.insert(one_by_one.end(), out.begin(), out.end());
      }
      EXPECT_TRUE(same_bits(cache.attend(kernel(isa), sequence, 0, 600), one_by_one))
          << isa_name(isa);
      const std::vector<float> rest = cache.attend(kernel(isa), sequence, 37, 600);
      const size_t skipped = 37 * sequence.token_size();
      EXPECT_TRUE(same_bits(rest, std::span<const float>(one_by_one).subspan(skipped)));
    }
  }
}

TEST_P(Attention, blocks_of_16_and_32_give_the_same_bits) {
  Random random(34);
  for (const KvDtype dtype : kKvDtypes) {
    const Sequence sequence(random, {dtype, 48, 4, 601});
    const Cache small = full_cache(sequence, 16);
    const Cache large = full_cache(sequence, 32);
    for (const Isa isa : fast_isas()) {
      EXPECT_TRUE(same_bits(small.attend(kernel(isa), sequence, 0, 601),
                            large.attend(kernel(isa), sequence, 0, 601)))
          << isa_name(isa);
    }
  }
}

// Values so small that sums vanish to -0 are the ones that junk times weight zero could change.
TEST_P(Attention, what_lies_in_later_slots_changes_nothing) {
  Random random(35);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 64, 3, 47});
    for (size_t i = 0; i < sequence.values.size(); i += 3) sequence.values[i] *= -2e-38F;
    for (const Isa isa : supported_isas()) {
      for (size_t position = 0; position < 47; ++position) {
        Cache clean(sequence, 32);
        clean.store(sequence, 0, position + 1);
        const std::vector<float> expected =
            clean.attend(kernel(isa), sequence, position, position + 1);
        for (const int junk : {0x3e, 0xbe, 0xff}) {  // 0.19, -0.37, NaN
          Cache dirty(sequence, 32);
          dirty.fill(static_cast<std::byte>(junk));
          dirty.store(sequence, 0, position + 1);
          ASSERT_TRUE(
              same_bits(dirty.attend(kernel(isa), sequence, position, position + 1), expected))
              << isa_name(isa) << ' ' << position << ' ' << junk;
        }
      }
    }
  }
}

TEST_P(Attention, heads_of_others_between_tokens_are_not_written) {
  Random random(36);
  const Sequence sequence(random, {KvDtype::kBF16, 64, 3, 20});
  const Cache cache = full_cache(sequence, 32);
  constexpr size_t kStride = 300;  // 3 heads of 64 and 108 floats of somebody else
  std::vector<float> queries(20 * kStride, 0.0F);
  for (size_t t = 0; t < 20; ++t) {
    std::copy_n(sequence.queries.begin() + static_cast<ptrdiff_t>(t * 192), 192,
                queries.begin() + static_cast<ptrdiff_t>(t * kStride));
  }
  for (const Isa isa : supported_isas()) {
    std::vector<float> out(20 * kStride, 7.0F);
    AttentionArgs args = cache.args(sequence, 0, 20, out.data());
    args.queries = queries.data();
    args.token_stride = kStride;
    kernel(isa)(args);
    const std::vector<float> expected = cache.attend(kernel(isa), sequence, 0, 20);
    for (size_t t = 0; t < 20; ++t) {
      const std::span row(out.data() + t * kStride, kStride);
      ASSERT_TRUE(same_bits(row.first(192), std::span(expected).subspan(t * 192, 192)));
      for (const float other : row.subspan(192)) ASSERT_EQ(other, 7.0F) << isa_name(isa);
    }
  }
}

// What a row becomes in the cache. The slot does not matter.
template <auto store, auto load>
std::vector<double> stored(const Shape& shape, std::span<const float> row) {
  const quant::KvTileShape tile{shape.dtype, shape.head_dim, 16};
  std::vector<std::byte> bytes(tile.tile_bytes());
  std::vector<float> values(row.size());
  store(tile, row, 0, bytes.data());
  load(tile, bytes.data(), 0, values);
  return {values.begin(), values.end()};
}
constexpr auto kStoredKey = stored<quant::store_key, quant::load_key>;
constexpr auto kStoredValue = stored<quant::store_value, quant::load_value>;

// Softmax attention in double precision over what the tiles hold.
std::vector<double> exact_attention(const Sequence& sequence, size_t position, size_t head) {
  const Shape& shape = sequence.shape;
  const size_t first = testing::first_in_window(shape, position);
  const float* query =
      sequence.queries.data() + position * sequence.token_size() + head * shape.head_dim;
  const std::vector<double> q = kStoredKey(shape, {query, shape.head_dim});
  std::vector<double> scores(position + 1, 0.0);
  for (size_t j = first; j <= position; ++j) {
    const std::vector<double> key = kStoredKey(shape, sequence.key(j));
    for (size_t d = 0; d < shape.head_dim; ++d) scores[j] += q[d] * key[d] * testing::kScale;
    if (shape.soft_cap > 0.0F) scores[j] = shape.soft_cap * std::tanh(scores[j] / shape.soft_cap);
  }
  const double max =
      *std::max_element(scores.begin() + static_cast<ptrdiff_t>(first), scores.end());
  double sum = 0.0;
  std::vector<double> out(shape.head_dim, 0.0);
  for (size_t j = first; j <= position; ++j) {
    const double p = std::exp(scores[j] - max);
    sum += p;
    const std::vector<double> value = kStoredValue(shape, sequence.value(j));
    for (size_t d = 0; d < shape.head_dim; ++d) out[d] += p * value[d];
  }
  for (double& o : out) o /= sum;
  return out;
}

// Values are below 1, so are outputs; an error e of a score is a relative error e of its weight,
// and relative errors of weights bounded by w move the output by at most 2 w.
//   score: head_dim fmas and a product on terms of at most 3 * 0.4: 1.2 head_dim^2 u. kInt8 has
//   fewer roundings, and those of the codes are in the exact result, too. A soft cap adds 8 u of
//   itself for tanh and 1 u for the product
//   weight: exp 4 u, its argument (below 2 * 1.2 head_dim) u, rescaling 2 u per step, bf16 2^-9
//   sums: one rounding per key
double tolerance(const Shape& shape, size_t position) {
  const double steps = static_cast<double>(position) / 32 + 1;
  const double score_error = 1.2 * shape.head_dim * shape.head_dim + 9 * double{shape.soft_cap};
  const double weight_error = (score_error + 4 + 2.4 * shape.head_dim + 2 * steps) * kUnit +
                              (shape.dtype == KvDtype::kBF16 ? 0x1p-9 : 0.0);
  return 2 * weight_error + static_cast<double>(position + 4) * kUnit;
}

TEST_P(Attention, reference_is_near_softmax_attention) {
  Random random(37);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 32, 2, 700});
    const Cache cache = full_cache(sequence, 32);
    for (const auto& [window, soft_cap] : {std::pair{0u, 0.0F},
                                           {0u, 50.0F},
                                           {0u, 0.5F},
                                           {1u, 0.0F},
                                           {40u, 3.0F},
                                           {300u, 0.0F},
                                           {512u, 3.0F}}) {
      sequence.shape.window = window;
      sequence.shape.soft_cap = soft_cap;
      for (const size_t position : {0u, 1u, 31u, 32u, 511u, 512u, 699u}) {
        const std::vector<float> out =
            cache.attend(kernel(Isa::kReference), sequence, position, position + 1);
        for (size_t head = 0; head < 2; ++head) {
          const std::vector<double> exact = exact_attention(sequence, position, head);
          for (size_t d = 0; d < 32; ++d) {
            ASSERT_NEAR(out[head * 32 + d], exact[d], tolerance(sequence.shape, position))
                << quant::kv_dtype_name(dtype) << ' ' << position << " window " << window << " cap "
                << soft_cap;
          }
        }
      }
    }
  }
}

TEST_P(Attention, a_nan_in_a_query_is_seen_in_its_row_only) {
  Random random(38);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 64, 3, 40});
    // The second one would be infinity without its lower half.
    sequence.queries[10 * sequence.token_size() + 64] = std::numeric_limits<float>::quiet_NaN();
    sequence.queries[11 * sequence.token_size() + 64] = std::bit_cast<float>(0x7f800001u);
    const Cache cache = full_cache(sequence, 32);
    for (const Isa isa : supported_isas()) {
      const std::vector<float> out = cache.attend(kernel(isa), sequence, 0, 40);
      for (size_t i = 0; i < out.size(); ++i) {
        const bool spoiled = i / 64 == 10 * 3 + 1 || i / 64 == 11 * 3 + 1;
        ASSERT_EQ(std::isnan(out[i]), spoiled) << isa_name(isa);
      }
    }
  }
}

// A later token's value is in the cache when an earlier one of the same chunk looks.
TEST_P(Attention, an_infinite_value_is_seen_by_its_own_and_later_tokens_only) {
  Random random(40);
  for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kBF16}) {
    for (const float spoiled :
         {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
          std::numeric_limits<float>::quiet_NaN()}) {
      for (const size_t position : {3u, 21u, 34u}) {
        Sequence sequence(random, {dtype, 80, 3, 53});
        const Cache clean = full_cache(sequence, 16);
        sequence.values[position * 80 + 70] = spoiled;
        for (const uint32_t block_tokens : {16u, 32u}) {
          const Cache cache = full_cache(sequence, block_tokens);
          const std::vector<float> expected =
              cache.attend(kernel(Isa::kReference), sequence, 0, 53);
          for (const Isa isa : fast_isas()) {
            const std::vector<float> out = cache.attend(kernel(isa), sequence, 0, 53);
            ASSERT_TRUE(same_bits(out, expected)) << isa_name(isa) << ' ' << position;
            const std::vector<float> before = clean.attend(kernel(isa), sequence, 0, position);
            ASSERT_TRUE(same_bits(std::span(out).first(before.size()), before))
                << isa_name(isa) << ' ' << position;
          }
        }
      }
    }
  }
}

// Codes of every value, and scales from which products overflow and vanish.
TEST_P(Attention, rows_of_any_magnitude_have_the_reference_bits) {
  Random random(39);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 32, 3, 45});
    for (std::vector<float>* rows : {&sequence.queries, &sequence.keys, &sequence.values}) {
      for (size_t first = 0; first < rows->size(); first += 32) {
        const float magnitude = std::ldexp(1.0F, static_cast<int>(random.below(250)) - 125);
        for (size_t d = 0; d < 32; ++d)
          (*rows)[first + d] *= static_cast<float>(random.below(4)) * magnitude;
      }
    }
    const Cache cache = full_cache(sequence, 16);
    const std::vector<float> expected = cache.attend(kernel(Isa::kReference), sequence, 0, 45);
    for (const Isa isa : fast_isas()) {
      EXPECT_TRUE(same_bits(cache.attend(kernel(isa), sequence, 0, 45), expected)) << isa_name(isa);
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
