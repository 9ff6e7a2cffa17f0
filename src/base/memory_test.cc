#include "base/memory.h"

#include <gtest/gtest.h>

namespace kvasir::base {
namespace {

TEST(Memory, linux_reports_between_a_megabyte_and_a_petabyte) {
  const std::optional<uint64_t> bytes = memory_available_bytes();
  ASSERT_TRUE(bytes.has_value());
  EXPECT_GT(*bytes, uint64_t{1} << 20);
  EXPECT_LT(*bytes, uint64_t{1} << 50);
}

}  // namespace
}  // namespace kvasir::base
