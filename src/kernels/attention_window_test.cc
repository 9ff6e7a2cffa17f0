// Sliding windows and soft caps of attention.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "kernels/attention_testing.h"

namespace kvasir::kernels {
namespace {

using quant::KvDtype;
using testing::Cache;
using testing::fast_isas;
using testing::first_in_window;
using testing::full_cache;
using testing::kKvDtypes;
using testing::Random;
using testing::same_bits;
using testing::Sequence;

class AttentionWindow : public testing::AttentionTest {
 protected:
  // Of positions [first, last), whatever the instruction set and the block size.
  static void expect_reference_bits(const Sequence& sequence, size_t first, size_t last) {
    const Cache small = full_cache(sequence, 16);
    const Cache large = full_cache(sequence, 32);
    const std::vector<float> expected =
        small.attend(kernel(Isa::kReference), sequence, first, last);
    for (const Isa isa : fast_isas()) {
      for (const Cache* cache : {&small, &large}) {
        ASSERT_TRUE(same_bits(cache->attend(kernel(isa), sequence, first, last), expected))
            << isa_name(isa) << ' ' << quant::kv_dtype_name(sequence.shape.dtype) << ' '
            << sequence.shape.head_dim << ' ' << sequence.shape.heads << " from " << first
            << " window " << sequence.shape.window << " cap " << sequence.shape.soft_cap
            << (cache == &small ? " small" : " large") << " blocks";
      }
    }
  }
};
INSTANTIATE_TEST_SUITE_P(InOrder, AttentionWindow, ::testing::ValuesIn(testing::kAttentionOrders),
                         testing::order_of);

constexpr std::array kShortWindows{1u, 5u, 16u, 31u, 32u, 33u, 100u};
constexpr std::array kSoftCaps{0.0F, 1.5F};

TEST_P(AttentionWindow, every_window_and_soft_cap_has_the_reference_bits) {
  Random random(51);
  for (const KvDtype dtype : kKvDtypes) {
    for (const auto& [head_dim, heads, positions] : {std::array<uint32_t, 3>{16, 5, 33},
                                                     {64, 3, 130},
                                                     {80, 9, 49},
                                                     {112, 2, 70},
                                                     {256, 1, 40}}) {
      Sequence sequence(random, {dtype, head_dim, heads, positions});
      for (const uint32_t window : kShortWindows) {
        for (const float soft_cap : kSoftCaps) {
          sequence.shape.window = window;
          sequence.shape.soft_cap = soft_cap;
          ASSERT_NO_FATAL_FAILURE(expect_reference_bits(sequence, 0, positions));
          ASSERT_NO_FATAL_FAILURE(expect_reference_bits(sequence, positions - 1, positions));
        }
      }
    }
  }
}

// Windows that begin and end at the ends of steps, blocks and spans, or next to them.
TEST_P(AttentionWindow, spans_are_merged_like_in_the_reference) {
  Random random(52);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 16, 3, 1600});
    for (const uint32_t window : {31u, 100u, 511u, 512u, 513u, 1100u}) {
      sequence.shape.window = window;
      for (const auto& [first, last] :
           {std::pair<size_t, size_t>{508, 548}, {1020, 1030}, {1100, 1140}, {1599, 1600}}) {
        ASSERT_NO_FATAL_FAILURE(expect_reference_bits(sequence, first, last));
      }
    }
  }
}

// Scores that are infinite or not a number, beside others and alone, seen and unseen.
TEST_P(AttentionWindow, rows_of_any_magnitude_have_the_reference_bits) {
  Random random(53);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 32, 3, 75});
    for (std::vector<float>* rows : {&sequence.queries, &sequence.keys, &sequence.values}) {
      for (size_t first = 0; first < rows->size(); first += 32) {
        const float magnitude = std::ldexp(1.0F, static_cast<int>(random.below(250)) - 125);
        for (size_t d = 0; d < 32; ++d) {
          (*rows)[first + d] *= static_cast<float>(random.below(4)) * magnitude;
        }
      }
    }
    for (const uint32_t window : kShortWindows) {
      for (const float soft_cap : kSoftCaps) {
        sequence.shape.window = window;
        sequence.shape.soft_cap = soft_cap;
        ASSERT_NO_FATAL_FAILURE(expect_reference_bits(sequence, 0, 75));
      }
    }
  }
}

TEST_P(AttentionWindow, one_as_long_as_the_context_changes_nothing) {
  Random random(54);
  for (const KvDtype dtype : kKvDtypes) {
    Sequence sequence(random, {dtype, 48, 3, 600});
    const Cache cache = full_cache(sequence, 16);
    for (const Isa isa : supported_isas()) {
      sequence.shape.window = 0;
      const std::vector<float> expected = cache.attend(kernel(isa), sequence, 570, 600);
      for (const uint32_t window : {600u, 601u, 5000u, UINT32_MAX}) {
        sequence.shape.window = window;
        EXPECT_TRUE(same_bits(cache.attend(kernel(isa), sequence, 570, 600), expected))
            << isa_name(isa) << ' ' << window;
      }
      sequence.shape.window = 599;
      EXPECT_FALSE(same_bits(cache.attend(kernel(isa), sequence, 570, 600), expected));
    }
  }
}

TEST_P(AttentionWindow, a_chunk_gives_the_bits_of_token_by_token) {
  Random random(55);
  for (const KvDtype dtype : kKvDtypes) {
    for (const uint32_t window : {7u, 32u, 61u, 500u}) {
      const Sequence sequence(random, {dtype, 32, 3, 610, window, 20.0F});
      const Cache cache = full_cache(sequence, 32);
      for (const Isa isa : fast_isas()) {
        std::vector<float> one_by_one;
        for (size_t p = 450; p < 610; ++p) {
          const std::vector<float> out = cache.attend(kernel(isa), sequence, p, p + 1);
          one_by_one.insert(one_by_one.end(), out.begin(), out.end());
        }
        EXPECT_TRUE(same_bits(cache.attend(kernel(isa), sequence, 450, 610), one_by_one))
            << isa_name(isa) << ' ' << window;
      }
    }
  }
}

// Blocks that have left the window are gone, and slots before it in the first block that remains
// hold junk. Values so small that sums vanish to -0 are the ones that it could change.
TEST_P(AttentionWindow, what_lies_before_it_is_not_read) {
  Random random(56);
  for (const KvDtype dtype : kKvDtypes) {
    for (const uint32_t window : {1u, 15u, 50u}) {
      Sequence sequence(random, {dtype, 64, 3, 130, window});
      for (size_t i = 0; i < sequence.values.size(); i += 3) sequence.values[i] *= -2e-38F;
      for (const size_t first : {47u, 64u, 111u}) {
        for (const size_t last : {first + 1, size_t{129}}) {
          const std::vector<float> expected =
              full_cache(sequence, 32).attend(kernel(Isa::kReference), sequence, first, last);
          const size_t begin = first_in_window(sequence.shape, first);
          for (const int junk : {0x3e, 0xbe, 0xff}) {  // 0.19, -0.37, NaN
            for (const uint32_t block_tokens : {16u, 32u}) {
              Cache cache(sequence, block_tokens);
              cache.fill(static_cast<std::byte>(junk));
              cache.store(sequence, begin, last);
              cache.forget(begin);
              for (const Isa isa : supported_isas()) {
                ASSERT_TRUE(same_bits(cache.attend(kernel(isa), sequence, first, last), expected))
                    << isa_name(isa) << ' ' << first << ' ' << last << " window " << window
                    << " junk " << junk << " block " << block_tokens;
              }
            }
          }
        }
      }
    }
  }
}

// A key or value that some tokens of a chunk still see, and later ones no longer.
TEST_P(AttentionWindow, an_infinite_value_is_seen_while_it_is_inside_only) {
  Random random(57);
  for (const KvDtype dtype : {KvDtype::kF32, KvDtype::kBF16}) {
    for (const uint32_t window : {1u, 6u, 33u}) {
      for (const size_t position : {3u, 21u, 34u}) {
        Sequence sequence(random, {dtype, 80, 3, 90, window});
        const Cache clean = full_cache(sequence, 16);
        sequence.values[position * 80 + 70] = std::numeric_limits<float>::infinity();
        sequence.keys[position * 80 + 8] = std::numeric_limits<float>::quiet_NaN();
        const Cache spoiled = full_cache(sequence, 16);
        ASSERT_NO_FATAL_FAILURE(expect_reference_bits(sequence, 0, 90));
        for (const Isa isa : supported_isas()) {
          const std::vector<float> before = clean.attend(kernel(isa), sequence, 0, 90);
          const std::vector<float> after = spoiled.attend(kernel(isa), sequence, 0, 90);
          for (size_t p = 0; p < 90; ++p) {
            const size_t size = sequence.token_size();
            const bool is_inside = position <= p && p < position + window;
            ASSERT_NE(same_bits(std::span(before).subspan(p * size, size),
                                std::span(after).subspan(p * size, size)),
                      is_inside)
                << isa_name(isa) << " window " << window << ' ' << p;
          }
        }
      }
    }
  }
}

// Scores of any size, even infinite ones, count as much as the cap says: of two keys the better one
// gets 1 / (1 + exp(-2 cap)).
TEST_P(AttentionWindow, a_soft_cap_bounds_the_scores) {
  Random random(59);
  for (const KvDtype dtype : kKvDtypes) {
    for (const float magnitude : {1e2F, 1e10F, 1e30F}) {
      for (const float soft_cap : {0.5F, 3.0F}) {
        Sequence sequence(random, {dtype, 16, 1, 2, 0, soft_cap});
        for (std::vector<float>* rows : {&sequence.queries, &sequence.keys, &sequence.values}) {
          std::ranges::fill(*rows, 0.0F);
        }
        sequence.queries[16] = magnitude;  // of the second token, and both keys
        sequence.keys[0] = magnitude;
        sequence.keys[16] = -magnitude;
        sequence.values[0] = 1.0F;  // of the first key
        const Cache cache = full_cache(sequence, 16);
        const double expected = 1 / (1 + std::exp(-2 * double{soft_cap}));
        for (const Isa isa : supported_isas()) {
          const std::vector<float> out = cache.attend(kernel(isa), sequence, 1, 2);
          EXPECT_NEAR(out[0], expected, dtype == KvDtype::kF32 ? 1e-6 : 0x1p-7)
              << isa_name(isa) << ' ' << quant::kv_dtype_name(dtype) << ' ' << magnitude;
        }
      }
    }
  }
}

}  // namespace
}  // namespace kvasir::kernels
