// What a well-formed file gives. Malformed ones: malformed_test.cc.
#include "gguf/gguf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "gguf/testing_writer.h"

namespace kvasir::gguf {
namespace {

using ::testing::ElementsAre;
using testing::f32_bytes;
using testing::GgufWriter;
using ::testing::HasSubstr;

GgufFile parse_valid(const std::vector<std::byte>& bytes) {
  auto file = GgufFile::parse(bytes, "test.gguf");
  EXPECT_TRUE(file.has_value()) << file.error().message;
  return *std::move(file);
}

TEST(GgufFile, reads_values_of_every_type) {
  const auto bytes = GgufWriter()
                         .set("u8", uint8_t{200})
                         .set("i16", int16_t{300})
                         .set("u64", ~uint64_t{0})
                         .set("f32", 0.25F)
                         .set("f64", 1e300)
                         .set("yes", true)
                         .set("text", "hello")
                         .set("texts", std::vector<std::string>{"a", "", "ccc"})
                         .set("floats", std::vector<float>{1.0F, -2.0F})
                         .set("ints", std::vector<int32_t>{-1, 7})
                         .finish();
  const GgufFile file = parse_valid(bytes);
  EXPECT_EQ(file.version(), 3U);
  EXPECT_EQ(file.name(), "test.gguf");
  EXPECT_EQ(**file.get_unsigned("u8"), 200U);
  EXPECT_EQ(**file.get_unsigned("i16"), 300U);
  EXPECT_EQ(**file.get_unsigned("u64"), ~uint64_t{0});
  EXPECT_EQ(**file.get_float("f32"), 0.25);
  EXPECT_EQ(**file.get_float("f64"), 1e300);
  EXPECT_TRUE(**file.get_bool("yes"));
  EXPECT_EQ(**file.get_string("text"), "hello");
  EXPECT_THAT(**file.get_strings("texts"), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(**file.get_floats("floats"), ElementsAre(1.0F, -2.0F));
  EXPECT_THAT(**file.get_integers("ints"), ElementsAre(-1, 7));
}

TEST(GgufFile, absent_keys_are_not_errors) {
  const auto bytes = GgufWriter().set("present", uint32_t{1}).finish();
  const GgufFile file = parse_valid(bytes);
  EXPECT_TRUE(file.has("present"));
  EXPECT_FALSE(file.has("absent"));
  EXPECT_EQ(*file.get_unsigned("absent"), std::nullopt);
  EXPECT_EQ(*file.get_float("absent"), std::nullopt);
  EXPECT_EQ(*file.get_bool("absent"), std::nullopt);
  EXPECT_EQ(*file.get_string("absent"), std::nullopt);
  EXPECT_EQ(*file.get_strings("absent"), std::nullopt);
  EXPECT_EQ(*file.get_floats("absent"), std::nullopt);
  EXPECT_EQ(*file.get_integers("absent"), std::nullopt);
}

TEST(GgufFile, values_of_another_type_are_refused_with_the_key) {
  const auto bytes = GgufWriter()
                         .set("negative", int32_t{-1})
                         .set("text", "x")
                         .set("bytes", std::vector<uint8_t>{1, 2, 3, 4})
                         .set("big", std::vector<uint64_t>{~uint64_t{0}})
                         .finish();
  const GgufFile file = parse_valid(bytes);
  EXPECT_THAT(file.get_unsigned("negative").error().message, HasSubstr("key 'negative' is INT32"));
  EXPECT_THAT(file.get_unsigned("text").error().message, HasSubstr("key 'text' is STRING"));
  EXPECT_THAT(file.get_float("text").error().message, HasSubstr("key 'text' is STRING"));
  EXPECT_THAT(file.get_float("negative").error().message, HasSubstr("floating-point number"));
  EXPECT_THAT(file.get_bool("negative").error().message, HasSubstr("BOOL is expected"));
  EXPECT_THAT(file.get_string("negative").error().message, HasSubstr("STRING is expected"));
  EXPECT_THAT(file.get_string("bytes").error().message, HasSubstr("an array of UINT8"));
  EXPECT_THAT(file.get_strings("bytes").error().message, HasSubstr("an array of STRING"));
  EXPECT_THAT(file.get_strings("text").error().message, HasSubstr("key 'text' is STRING"));
  // An array of another element type must not be read as floats.
  EXPECT_THAT(file.get_floats("bytes").error().message, HasSubstr("an array of UINT8"));
  EXPECT_THAT(file.get_integers("big").error().message, HasSubstr("an array of UINT64"));
  EXPECT_EQ(file.get_integers("big").error().kind, base::ErrorKind::kBadInput);
}

TEST(GgufFile, tensors_keep_the_order_of_the_file_and_are_found_by_name) {
  const auto bytes = GgufWriter()
                         .tensor({"z", {4, 3}, 0, f32_bytes(12)})
                         .tensor({"a", {5}, 0, f32_bytes(5)})
                         .finish();
  const GgufFile file = parse_valid(bytes);
  ASSERT_EQ(file.tensors().size(), 2U);
  EXPECT_EQ(file.tensors()[0].name, "z");
  EXPECT_EQ(file.tensors()[0].elements(), 12U);
  const TensorInfo* tensor = file.find_tensor("a");
  ASSERT_NE(tensor, nullptr);
  EXPECT_THAT(tensor->dimensions, ElementsAre(5));
  ASSERT_EQ(tensor->bytes.size(), 20U);
  EXPECT_EQ(reinterpret_cast<const float*>(tensor->bytes.data())[4], 4.5F);
  EXPECT_EQ(file.find_tensor("b"), nullptr);
  EXPECT_EQ(file.find_tensor(""), nullptr);
}

TEST(GgufFile, a_known_type_without_decoder_has_no_bytes) {
  const auto bytes = GgufWriter()
                         .tensor({"q4k", {256}, 12, std::vector<std::byte>(144)})
                         .tensor({"f32", {8}, 0, f32_bytes(8)})
                         .finish();
  const GgufFile file = parse_valid(bytes);
  EXPECT_EQ(file.find_tensor("q4k")->type_id, 12U);
  EXPECT_TRUE(file.find_tensor("q4k")->bytes.empty());
  EXPECT_EQ(file.find_tensor("f32")->bytes.size(), 32U);
}

TEST(GgufFile, version_2_and_other_alignments_are_read) {
  GgufWriter writer;
  writer.version = 2;
  writer.alignment = 64;
  const auto bytes = writer.set("general.alignment", uint32_t{64})
                         .tensor({"a", {1}, 0, f32_bytes(1)})
                         .tensor({"b", {1}, 0, f32_bytes(1)})
                         .finish();
  const GgufFile file = parse_valid(bytes);
  EXPECT_EQ(file.version(), 2U);
  const auto distance = file.find_tensor("b")->bytes.data() - file.find_tensor("a")->bytes.data();
  EXPECT_EQ(distance, 64);
}

TEST(GgufFile, a_file_without_tensors_needs_no_data_section) {
  const auto bytes = GgufWriter().set("a", uint8_t{1}).finish();
  EXPECT_TRUE(parse_valid(bytes).tensors().empty());
}

TEST(GgufFile, gaps_between_tensors_are_allowed) {
  const auto bytes = GgufWriter()
                         .tensor({"a", {1}, 0, f32_bytes(1)})
                         .tensor({"b", {1}, 0, f32_bytes(1), 32})
                         .tensor({"c", {32}, 0, f32_bytes(32), 64})
                         .tensor({"end", {32}, 0, f32_bytes(32), 64})
                         .finish();
  std::vector<std::byte> longer = bytes;
  longer.resize(bytes.size() + 64);
  EXPECT_EQ(parse_valid(longer).tensors().size(), 4U);
}

TEST(GgufFile, opens_a_real_file_and_its_views_survive_a_move) {
  auto opened = GgufFile::open(KVASIR_SOURCE_DIR "/tests/golden/tiny/llama.gguf");
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  const GgufFile file = *std::move(opened);
  EXPECT_EQ(**file.get_string("general.architecture"), "llama");
  EXPECT_EQ((*file.get_strings("tokenizer.ggml.tokens"))->size(), 288U);
  EXPECT_EQ(file.tensors().size(), 29U);
  EXPECT_THAT(file.find_tensor("token_embd.weight")->dimensions, ElementsAre(64, 288));
}

TEST(GgufFile, a_missing_file_is_named) {
  const auto file = GgufFile::open("/nonexistent/model.gguf");
  ASSERT_FALSE(file.has_value());
  EXPECT_THAT(file.error().message, HasSubstr("/nonexistent/model.gguf"));
}

TEST(Printable, makes_one_harmless_line_of_any_text) {
  EXPECT_EQ(printable("plain.key"), "'plain.key'");
  EXPECT_EQ(printable(std::string_view("a\n\x1b'\\\0", 6)), "'a\\x0a\\x1b\\x27\\x5c\\x00'");
  EXPECT_EQ(printable(std::string(100, 'k')), "'" + std::string(80, 'k') + "...'");
}

}  // namespace
}  // namespace kvasir::gguf
