// Every way a file can lie must end in one line that names the file, the field and its offset.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "gguf/gguf_file.h"
#include "gguf/testing_writer.h"

namespace kvasir::gguf {
namespace {

using ::testing::AllOf;
using testing::ByteWriter;
using testing::f32_bytes;
using testing::GgufWriter;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

void expect_refused(const std::vector<std::byte>& bytes, const std::string& field,
                    const std::string& problem) {
  const auto file = GgufFile::parse(bytes, "bad.gguf");
  ASSERT_FALSE(file.has_value()) << field << ": " << problem;
  EXPECT_EQ(file.error().kind, base::ErrorKind::kBadInput);
  EXPECT_THAT(file.error().message,
              AllOf(StartsWith("bad.gguf: " + field + " at byte "), HasSubstr(problem),
                    HasSubstr("; "), Not(HasSubstr("\n"))));
}

GgufWriter small_file() {
  GgufWriter writer;
  writer.set("general.architecture", "llama")
      .set("general.alignment", uint32_t{32})
      .set("list", std::vector<std::string>{"one", "two"})
      .set("flag", true)
      .set("flags", std::vector<float>{1.0F, 2.0F})
      .tensor({"first", {32, 2}, 8, std::vector<std::byte>(68)})
      .tensor({"second", {8}, 0, f32_bytes(8)});
  return writer;
}

TEST(Malformed, cutting_the_file_at_any_byte_is_refused) {
  const auto bytes = small_file().finish();
  ASSERT_TRUE(GgufFile::parse(bytes, "whole").has_value());
  for (size_t size = 0; size < bytes.size(); ++size) {
    // A copy of the exact size, so that a sanitizer sees any read past the end.
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    const auto file = GgufFile::parse(cut, "cut");
    ASSERT_FALSE(file.has_value()) << size;
    EXPECT_THAT(file.error().message, AllOf(StartsWith("cut: "), HasSubstr(" at byte "))) << size;
  }
}

void read_everything(const GgufFile& file) {
  for (const char* key : {"general.architecture", "general.alignment", "list", "flag", "flags"}) {
    (void)file.get_unsigned(key);
    (void)file.get_float(key);
    (void)file.get_bool(key);
    (void)file.get_string(key);
    (void)file.get_strings(key);
    (void)file.get_floats(key);
    (void)file.get_integers(key);
  }
}

TEST(Malformed, random_damage_never_breaks_the_reader) {
  constexpr uint32_t kSeed = 4711;
  SCOPED_TRACE(kSeed);
  std::mt19937 random(kSeed);
  const auto bytes = small_file().finish();
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    auto damaged = bytes;
    const uint32_t flips = 1 + random() % 4;
    for (uint32_t i = 0; i < flips; ++i) {
      damaged[random() % damaged.size()] ^= std::byte(1U << (random() % 8));
    }
    const auto file = GgufFile::parse(damaged, "damaged");
    if (file) {
      read_everything(*file);
      for (const TensorInfo& tensor : file->tensors()) {
        ASSERT_LE(tensor.bytes.size(), damaged.size());
      }
    } else {
      ++refused;
      ASSERT_THAT(file.error().message, AllOf(StartsWith("damaged: "), HasSubstr(" at byte ")));
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(Malformed, headers_that_are_not_ours) {
  expect_refused({}, "magic", "not a GGUF file");
  expect_refused(ByteWriter().number(uint32_t{0x46554746}).bytes(), "magic", "not a GGUF file");
  GgufWriter writer;
  writer.version = 1;
  expect_refused(writer.finish(), "version", "1 is not supported (2 and 3 are)");
  writer.version = 4;
  expect_refused(writer.finish(), "version", "4 is not supported");
  writer.version = 0x03000000;
  expect_refused(writer.finish(), "version", "big endian");
}

TEST(Malformed, counts_that_the_file_can_not_hold) {
  GgufWriter writer = small_file();
  writer.extra_keys = ~uint64_t{0} - 100;
  expect_refused(writer.finish(), "key count", "is more than 65536");
  writer.extra_keys = 60000;
  expect_refused(writer.finish(), "key count", "can not fit in the remaining");
  writer.extra_keys = 0;
  writer.extra_tensors = uint64_t{1} << 62;
  expect_refused(writer.finish(), "tensor count", "is more than 65536");
  writer.extra_tensors = 60000;
  expect_refused(writer.finish(), "tensor count", "can not fit in the remaining");
}

TEST(Malformed, keys) {
  expect_refused(GgufWriter().set("", uint32_t{1}).finish(), "key 0", "empty");
  expect_refused(GgufWriter().set(std::string(65537, 'k'), uint8_t{1}).finish(), "key 0",
                 "65537 bytes are more than 65536");
  EXPECT_TRUE(
      GgufFile::parse(GgufWriter().set(std::string(65536, 'k'), uint8_t{1}).finish(), "long"));
  const ByteWriter value = ByteWriter().type(ValueType::kUint8).number(uint8_t{1});
  expect_refused(
      GgufWriter().raw("twin", value).set("other", uint8_t{0}).raw("twin", value).finish(),
      "key 'twin'", "appears twice");
}

TEST(Malformed, values) {
  expect_refused(GgufWriter().raw("k", ByteWriter().number(uint32_t{13})).set("x", 1.0).finish(),
                 "type of key 'k'", "13 is not a value type");
  expect_refused(
      GgufWriter().raw("k", ByteWriter().type(ValueType::kBool).number(uint8_t{2})).finish(),
      "value of key 'k'", "2 is neither true nor false");
  expect_refused(
      GgufWriter()
          .raw("k",
               ByteWriter().type(ValueType::kString).number(~uint64_t{0} - 3).number(uint64_t{0}))
          .finish(),
      "value of key 'k'", "passes the end of the file");
}

TEST(Malformed, metadata_of_absurd_length) {
  const std::string long_text((size_t{48} << 20) + 1, 'x');
  expect_refused(GgufWriter().set("k", long_text).set("x", 1.0).finish(), "value of key 'k'",
                 "the metadata is longer than");
}

ByteWriter array(ValueType type, uint64_t count) {
  return ByteWriter().type(ValueType::kArray).type(type).number(count);
}

TEST(Malformed, arrays) {
  expect_refused(GgufWriter().raw("k", array(ValueType::kArray, 1)).set("x", 1.0).finish(),
                 "element type of key 'k'", "arrays of arrays");
  expect_refused(
      GgufWriter().raw("k", array(ValueType::kUint8, uint64_t{1} << 63)).set("x", 1.0).finish(),
      "element count of key 'k'", "is more than");
  expect_refused(GgufWriter().raw("k", array(ValueType::kFloat64, 1000)).set("x", 1.0).finish(),
                 "element count of key 'k'", "can not fit in the remaining");
  expect_refused(GgufWriter().raw("k", array(ValueType::kString, 1000000)).set("x", 1.0).finish(),
                 "element count of key 'k'", "can not fit in the remaining");
  expect_refused(
      GgufWriter()
          .raw("k",
               array(ValueType::kBool, 3).number(uint8_t{0}).number(uint8_t{1}).number(uint8_t{9}))
          .finish(),
      "elements of key 'k'", "9 is neither true nor false");
  expect_refused(GgufWriter()
                     .raw("k", array(ValueType::kString, 2).string("ok").number(uint64_t{99}))
                     .finish(),
                 "elements of key 'k'", "string 1 passes the end");
}

TEST(Malformed, alignments) {
  const auto with = [](const auto& value) {
    return GgufWriter()
        .set("general.alignment", value)
        .tensor({"t", {1}, 0, f32_bytes(1)})
        .finish();
  };
  for (const uint32_t bad : {0U, 4U, 24U, 131072U, 0x80000000U}) {
    expect_refused(with(bad), "value of key 'general.alignment'", "is not a power of two");
  }
  expect_refused(with(uint64_t{32}), "value of key 'general.alignment'", "must be UINT32");
  expect_refused(with(std::vector<uint32_t>{}), "value of key 'general.alignment'",
                 "must be UINT32");
}

TEST(Malformed, tensor_names) {
  expect_refused(GgufWriter().tensor({"", {1}, 0, f32_bytes(1)}).finish(), "name of tensor 0",
                 "0 bytes are not 1 to 63");
  expect_refused(GgufWriter().tensor({std::string(64, 'n'), {1}, 0, f32_bytes(1)}).finish(),
                 "name of tensor 0", "64 bytes are not 1 to 63");
  expect_refused(GgufWriter()
                     .tensor({"t", {1}, 0, f32_bytes(1)})
                     .tensor_again({"t", {1}, 0, f32_bytes(1)})
                     .finish(),
                 "tensor 't'", "the name appears twice");
}

TEST(Malformed, tensor_shapes) {
  const auto with = [](std::vector<uint64_t> dimensions) {
    return GgufWriter().tensor({"t", std::move(dimensions), 0, f32_bytes(64)}).finish();
  };
  expect_refused(with({}), "dimensions of tensor 't'", "0 are not 1 to 4");
  expect_refused(with({1, 1, 1, 1, 1}), "dimensions of tensor 't'", "5 are not 1 to 4");
  expect_refused(with({4, 0}), "dimensions of tensor 't'", "0 is not 1 to");
  expect_refused(with({(uint64_t{1} << 40) + 1}), "dimensions of tensor 't'", "is not 1 to");
  expect_refused(with({~uint64_t{0}}), "dimensions of tensor 't'", "is not 1 to");
  expect_refused(with({uint64_t{1} << 40, uint64_t{1} << 40}), "dimensions of tensor 't'",
                 "their product overflows");
  // 2^63 elements fit in 64 bits, their bytes do not.
  expect_refused(with({uint64_t{1} << 40, uint64_t{1} << 23}), "offset of tensor 't'",
                 "passes the end of the file");
}

TEST(Malformed, tensor_types) {
  const auto with = [](uint32_t type_id, uint64_t columns) {
    return GgufWriter().tensor({"t", {columns}, type_id, f32_bytes(64)}).finish();
  };
  expect_refused(with(4, 32), "type of tensor 't'", "4 is not a tensor type");
  expect_refused(with(0xffffffff, 32), "type of tensor 't'", "4294967295 is not a tensor type");
  expect_refused(with(3, 48), "type of tensor 't'", "48 elements are not whole Q4_1 blocks of 32");
}

TEST(Malformed, tensor_extents) {
  const auto with = [](uint64_t added_offset, uint32_t type_id) {
    return GgufWriter()
        .tensor({"a", {16}, 0, f32_bytes(16)})
        .tensor({"b", {16}, type_id, f32_bytes(16), added_offset})
        .finish();
  };
  ASSERT_TRUE(GgufFile::parse(with(0, 0), "good").has_value());
  expect_refused(with(8, 0), "offset of tensor 'b'", "72 is not a multiple of 32");
  expect_refused(with(32, 0), "offset of tensor 'b'", "passes the end of the file");
  expect_refused(with(1024, 0), "offset of tensor 'b'", "passes the 128 bytes of data");
  expect_refused(with(~uint64_t{0} - 64 - 31, 0), "offset of tensor 'b'", "passes the 128 bytes");
  expect_refused(with(~uint64_t{0} - 64 + 1, 0), "offset of tensor 'b'", "overlaps tensor 'a'");
  expect_refused(with(~uint64_t{0} - 32 + 1, 0), "offset of tensor 'b'", "overlaps tensor 'a'");
  // A type of unknown size: its offset is still checked.
  expect_refused(with(1024, 12), "offset of tensor 'b'", "passes the 128 bytes of data");
  expect_refused(with(~uint64_t{0} - 32 + 1, 12), "offset of tensor 'b'", "overlaps tensor 'a'");
}

TEST(Malformed, messages_can_not_be_forged_by_names) {
  expect_refused(GgufWriter().tensor({"a\nerror: b", {0}, 0, f32_bytes(1)}).finish(),
                 "dimensions of tensor 'a\\x0aerror: b'", "0 is not 1 to");
}

}  // namespace
}  // namespace kvasir::gguf
