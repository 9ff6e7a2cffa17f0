#include "quant/types.h"

#include <algorithm>

#include "base/check.h"

namespace kvasir::quant {
namespace {

constexpr TensorTypeInfo kDecodable[] = {
    {TensorType::kF32, "F32", 1, 4},     {TensorType::kF16, "F16", 1, 2},
    {TensorType::kQ4_0, "Q4_0", 32, 18}, {TensorType::kQ4_1, "Q4_1", 32, 20},
    {TensorType::kQ5_0, "Q5_0", 32, 22}, {TensorType::kQ5_1, "Q5_1", 32, 24},
    {TensorType::kQ8_0, "Q8_0", 32, 34}, {TensorType::kBF16, "BF16", 1, 2},
};

struct TypeName {
  uint32_t id;
  std::string_view name;
};

// Every id in use; the gaps are formats that were withdrawn.
constexpr TypeName kNames[] = {
    {0, "F32"},     {1, "F16"},    {2, "Q4_0"},     {3, "Q4_1"},    {6, "Q5_0"},     {7, "Q5_1"},
    {8, "Q8_0"},    {9, "Q8_1"},   {10, "Q2_K"},    {11, "Q3_K"},   {12, "Q4_K"},    {13, "Q5_K"},
    {14, "Q6_K"},   {15, "Q8_K"},  {16, "IQ2_XXS"}, {17, "IQ2_XS"}, {18, "IQ3_XXS"}, {19, "IQ1_S"},
    {20, "IQ4_NL"}, {21, "IQ3_S"}, {22, "IQ2_S"},   {23, "IQ4_XS"}, {24, "I8"},      {25, "I16"},
    {26, "I32"},    {27, "I64"},   {28, "F64"},     {29, "IQ1_M"},  {30, "BF16"},    {34, "TQ1_0"},
    {35, "TQ2_0"},  {39, "MXFP4"}, {40, "NVFP4"},   {41, "Q1_0"},   {42, "Q2_0"},
};

}  // namespace

const TensorTypeInfo* find_tensor_type(uint32_t type_id) {
  const auto* found =
      std::ranges::find(kDecodable, static_cast<TensorType>(type_id), &TensorTypeInfo::type);
  return found == std::end(kDecodable) ? nullptr : found;
}

const TensorTypeInfo& tensor_type_info(TensorType type) {
  const TensorTypeInfo* info = find_tensor_type(static_cast<uint32_t>(type));
  CHECK(info != nullptr);
  return *info;
}

std::optional<std::string_view> tensor_type_name(uint32_t type_id) {
  const auto* found = std::ranges::find(kNames, type_id, &TypeName::id);
  if (found == std::end(kNames)) return std::nullopt;
  return found->name;
}

uint64_t row_size_bytes(TensorType type, uint64_t columns) {
  const TensorTypeInfo& info = tensor_type_info(type);
  CHECK(columns % info.block_elements == 0);
  return columns / info.block_elements * info.block_bytes;
}

}  // namespace kvasir::quant
