#include "base/aligned_buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace kvasir::base {
namespace {

AlignedBuffer make(size_t size_bytes) {
  auto buffer = AlignedBuffer::create(size_bytes);
  EXPECT_TRUE(buffer.has_value()) << buffer.error().message;
  return *std::move(buffer);
}

TEST(AlignedBuffer, is_aligned_zero_filled_and_writable_to_the_last_byte) {
  for (const size_t size_bytes : {size_t{1}, size_t{4097}, (size_t{2} << 20) + 1}) {
    const AlignedBuffer buffer = make(size_bytes);
    ASSERT_EQ(buffer.size_bytes(), size_bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % 64, 0U);
    const auto bytes = buffer.as<uint8_t>(0, size_bytes);
    EXPECT_TRUE(std::ranges::all_of(bytes, [](uint8_t byte) { return byte == 0; }));
    bytes.back() = 1;
  }
}

TEST(AlignedBuffer, nothing_is_a_valid_size) {
  const AlignedBuffer buffer = make(0);
  EXPECT_EQ(buffer.size_bytes(), 0U);
}

TEST(AlignedBuffer, a_move_takes_the_memory_along) {
  AlignedBuffer first = make(64);
  first.as<uint32_t>(60, 1)[0] = 7;
  AlignedBuffer second = std::move(first);
  EXPECT_EQ(second.as<uint32_t>(60, 1)[0], 7U);
  AlignedBuffer third;
  third = std::move(second);
  EXPECT_EQ(third.as<uint32_t>(60, 1)[0], 7U);
}

TEST(AlignedBuffer, more_than_the_machine_can_address_is_an_error) {
  const auto buffer = AlignedBuffer::create(size_t{1} << 60);
  ASSERT_FALSE(buffer.has_value());
  EXPECT_EQ(buffer.error().kind, ErrorKind::kRuntime);
  EXPECT_NE(buffer.error().message.find("1152921504606846976 bytes"), std::string::npos);
}

TEST(AlignedBufferDeathTest, views_past_the_end_are_a_bug) {
  const AlignedBuffer buffer = make(64);
  EXPECT_DEATH((void)buffer.as<float>(4, 16), "CHECK");
  EXPECT_DEATH((void)buffer.as<float>(2, 1), "CHECK");
}

}  // namespace
}  // namespace kvasir::base
