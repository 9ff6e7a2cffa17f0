#include "base/mapped_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <vector>

namespace kvasir::base {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class MappedFileTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::create_directories(directory_); }
  void TearDown() override { fs::remove_all(directory_); }

  std::string path(const char* name) const { return (directory_ / name).string(); }
  std::string write(const char* name, std::string_view content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }
  void expect_refused(const std::string& file, ErrorKind kind, const char* problem) const {
    const auto mapped = MappedFile::open(file);
    ASSERT_FALSE(mapped.has_value());
    EXPECT_EQ(mapped.error().kind, kind);
    EXPECT_THAT(mapped.error().message, AllOf(HasSubstr(file), HasSubstr(problem)));
  }

 private:
  const fs::path directory_ = fs::path(::testing::TempDir()) /
                              ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

TEST_F(MappedFileTest, shows_the_bytes_of_the_file) {
  auto mapped = MappedFile::open(write("file", "hello"));
  ASSERT_TRUE(mapped.has_value()) << mapped.error().message;
  const MappedFile moved = *std::move(mapped);
  const auto bytes = moved.bytes();
  EXPECT_EQ(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()), "hello");
}

TEST_F(MappedFileTest, forgotten_bytes_can_be_read_again) {
  const std::string content(40'000, 'x');
  const auto mapped = MappedFile::open(write("file", content));
  ASSERT_TRUE(mapped.has_value()) << mapped.error().message;
  const auto bytes = mapped->bytes();
  const auto text = [&] {
    return std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  EXPECT_EQ(text(), content);
  mapped->forget(bytes.subspan(5, 30'000));
  mapped->forget(bytes.subspan(7, 3));  // no whole page
  EXPECT_EQ(text(), content);
}

// Somebody else's memory would be lost.
TEST_F(MappedFileTest, only_its_own_bytes_are_forgotten) {
  const auto mapped = MappedFile::open(write("file", "hello"));
  ASSERT_TRUE(mapped.has_value()) << mapped.error().message;
  const std::vector<std::byte> others(100'000, std::byte{7});
  mapped->forget(others);
  EXPECT_EQ(std::ranges::count(others, std::byte{7}), 100'000);
}

TEST_F(MappedFileTest, an_empty_file_has_no_bytes) {
  const auto mapped = MappedFile::open(write("file", ""));
  ASSERT_TRUE(mapped.has_value()) << mapped.error().message;
  EXPECT_TRUE(mapped->bytes().empty());
}

TEST_F(MappedFileTest, what_is_not_a_regular_file_is_refused) {
  expect_refused(path("absent"), ErrorKind::kBadInput, "No such file");
  expect_refused(fs::path(path("x")).parent_path().string(), ErrorKind::kBadInput,
                 "not a regular file");
  const std::string fifo = path("fifo");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  expect_refused(fifo, ErrorKind::kBadInput, "not a regular file");
}

}  // namespace
}  // namespace kvasir::base
