#include "quant/types.h"

#include <gtest/gtest.h>

namespace kvasir::quant {
namespace {

TEST(TensorTypes, decodable_types_have_the_block_sizes_of_the_format) {
  struct Case {
    uint32_t id;
    const char* name;
    uint32_t elements;
    uint32_t bytes;
  };
  for (const Case& c : {Case{0, "F32", 1, 4}, Case{1, "F16", 1, 2}, Case{2, "Q4_0", 32, 18},
                        Case{3, "Q4_1", 32, 20}, Case{6, "Q5_0", 32, 22}, Case{7, "Q5_1", 32, 24},
                        Case{8, "Q8_0", 32, 34}, Case{30, "BF16", 1, 2}}) {
    const TensorTypeInfo* info = find_tensor_type(c.id);
    ASSERT_NE(info, nullptr) << c.name;
    EXPECT_EQ(static_cast<uint32_t>(info->type), c.id);
    EXPECT_EQ(info->name, c.name);
    EXPECT_EQ(info->block_elements, c.elements);
    EXPECT_EQ(info->block_bytes, c.bytes);
    EXPECT_EQ(row_size_bytes(info->type, 96), 96 / c.elements * c.bytes);
    EXPECT_EQ(tensor_type_name(c.id), c.name);
  }
}

TEST(TensorTypes, known_but_undecodable_types_have_a_name_only) {
  EXPECT_EQ(find_tensor_type(12), nullptr);
  EXPECT_EQ(tensor_type_name(12), "Q4_K");
  EXPECT_EQ(find_tensor_type(39), nullptr);
  EXPECT_EQ(tensor_type_name(39), "MXFP4");
}

TEST(TensorTypes, withdrawn_and_unheard_of_ids_have_no_name) {
  for (const uint32_t id : {4U, 5U, 31U, 32U, 33U, 36U, 37U, 38U, 43U, 0xffffffffU}) {
    EXPECT_EQ(tensor_type_name(id), std::nullopt) << id;
    EXPECT_EQ(find_tensor_type(id), nullptr) << id;
  }
}

}  // namespace
}  // namespace kvasir::quant
