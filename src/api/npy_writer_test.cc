#include "api/npy_writer.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace kvasir::api {
namespace {

class NpyWriterTest : public testing::Test {
 public:
  NpyWriterTest() {
    std::string name = testing::TempDir() + "npy_XXXXXX";
    folder_ = mkdtemp(name.data());
  }
  ~NpyWriterTest() override { std::filesystem::remove_all(folder_); }

 protected:
  std::string target() const { return folder_ / "logits.npy"; }
  size_t files() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  std::filesystem::path folder_;
};

TEST_F(NpyWriterTest, a_finished_file_is_header_and_rows) {
  auto writer = NpyWriter::create(target(), 2, 3);
  ASSERT_TRUE(writer.has_value()) << writer.error().message;
  ASSERT_TRUE(writer->write_row(std::array{1.0F, 2.0F, 3.0F}).has_value());
  ASSERT_TRUE(writer->write_row(std::array{4.0F, 5.0F, 6.0F}).has_value());
  ASSERT_TRUE(writer->finish().has_value());

  std::ifstream file(target(), std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  ASSERT_EQ(bytes.size(), 128 + 6 * sizeof(float));
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  EXPECT_EQ(bytes.substr(10, 59), "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }");
  EXPECT_EQ(bytes[127], '\n');
  std::array<float, 6> values{};
  std::memcpy(values.data(), bytes.data() + 128, sizeof(values));
  EXPECT_EQ(values, (std::array{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}));
  EXPECT_EQ(files(), 1u);
}

TEST_F(NpyWriterTest, an_unfinished_file_leaves_nothing_and_keeps_the_old_one) {
  std::ofstream(target()) << "old";
  {
    auto writer = NpyWriter::create(target(), 2, 1);
    ASSERT_TRUE(writer.has_value());
    ASSERT_TRUE(writer->write_row(std::array{1.0F}).has_value());
    EXPECT_EQ(files(), 2u);
  }
  EXPECT_EQ(files(), 1u);
  EXPECT_EQ(std::filesystem::file_size(target()), 3u);
}

TEST_F(NpyWriterTest, a_folder_that_does_not_exist_is_named) {
  const auto writer = NpyWriter::create(folder_ / "none" / "x.npy", 1, 1);
  ASSERT_FALSE(writer.has_value());
  EXPECT_NE(writer.error().message.find("none/x.npy"), std::string::npos);
}

TEST_F(NpyWriterTest, a_target_that_can_not_be_replaced_is_an_error_and_leaves_nothing) {
  std::filesystem::create_directory(target());
  auto writer = NpyWriter::create(target(), 1, 1);
  ASSERT_TRUE(writer.has_value());
  ASSERT_TRUE(writer->write_row(std::array{1.0F}).has_value());
  EXPECT_FALSE(writer->finish().has_value());
  EXPECT_EQ(files(), 1u);
}

}  // namespace
}  // namespace kvasir::api
