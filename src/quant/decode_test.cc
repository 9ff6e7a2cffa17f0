#include "quant/decode.h"

#include <gtest/gtest.h>

#include <bit>
#include <fstream>
#include <string>
#include <vector>

namespace kvasir::quant {
namespace {

struct GoldenCase {
  std::string type_name;
  std::vector<std::byte> stored;
  std::vector<uint32_t> value_bits;
};

std::vector<uint32_t> parse_hex(const std::string& text, size_t digits) {
  std::vector<uint32_t> numbers;
  for (size_t at = 0; at + digits <= text.size(); at += digits) {
    numbers.push_back(static_cast<uint32_t>(std::stoul(text.substr(at, digits), nullptr, 16)));
  }
  return numbers;
}

// Values of an independent decoder; the file says which.
std::vector<GoldenCase> read_golden() {
  std::ifstream file(KVASIR_SOURCE_DIR "/tests/golden/quant_blocks.txt");
  std::vector<GoldenCase> cases;
  std::string line;
  while (std::getline(file, line)) {
    if (line.starts_with('#')) continue;
    GoldenCase golden{.type_name = line, .stored = {}, .value_bits = {}};
    std::getline(file, line);
    for (const uint32_t byte : parse_hex(line, 2)) golden.stored.push_back(std::byte(byte));
    std::getline(file, line);
    golden.value_bits = parse_hex(line, 8);
    cases.push_back(golden);
  }
  return cases;
}

std::optional<TensorType> type_named(const std::string& name) {
  for (uint32_t id = 0; id < 64; ++id) {
    if (find_tensor_type(id) != nullptr && tensor_type_name(id) == name) return TensorType(id);
  }
  return std::nullopt;
}

TEST(Decode, agrees_bit_for_bit_with_an_independent_decoder) {
  const std::vector<GoldenCase> cases = read_golden();
  ASSERT_EQ(cases.size(), 7U);  // all decodable types but F32
  for (const GoldenCase& golden : cases) {
    SCOPED_TRACE(golden.type_name);
    const auto type = type_named(golden.type_name);
    ASSERT_TRUE(type.has_value());
    ASSERT_GE(golden.value_bits.size(), 32U);
    std::vector<float> values(golden.value_bits.size());
    decode_row(*type, golden.stored, values);
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(std::bit_cast<uint32_t>(values[i]), golden.value_bits[i]) << "element " << i;
    }
  }
}

TEST(Decode, f32_is_copied_unchanged) {
  const std::vector<uint32_t> bits = {0x00000000, 0x80000000, 0x00000001, 0x3f800000, 0x7f7fffff};
  std::vector<float> values(bits.size());
  decode_row(TensorType::kF32, std::as_bytes(std::span(bits)), values);
  for (size_t i = 0; i < bits.size(); ++i) {
    EXPECT_EQ(std::bit_cast<uint32_t>(values[i]), bits[i]);
  }
}

TEST(DecodeDeathTest, sizes_that_disagree_are_a_bug) {
  std::vector<float> values(32);
  const std::vector<std::byte> stored(33);
  EXPECT_DEATH(decode_row(TensorType::kQ8_0, stored, values), "CHECK");
}

}  // namespace
}  // namespace kvasir::quant
