#include "http/access_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace kvasir::http {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Of "opensesame".
constexpr const char* kSesameDigest =
    "d9fb92e3bbe65be1f1aad4a82eef4567f7a1ebe2cd110c8049b9698be7a70c88";

class KeyFile {
 public:
  explicit KeyFile(const std::string& text)
      : path_(std::filesystem::temp_directory_path() /
              ("kvasir-keys-" + std::to_string(getpid()))) {
    std::ofstream(path_) << text;
  }
  ~KeyFile() { std::filesystem::remove(path_); }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

std::string error_of(const std::string& text) {
  const KeyFile file(text);
  AccessKeys keys;
  const auto status = keys.read_file(file.path());
  if (status) return "";
  EXPECT_THAT(status.error().message, HasSubstr(file.path()));
  EXPECT_EQ(status.error().kind, base::ErrorKind::kBadInput);
  return status.error().message.substr(file.path().size());
}

TEST(AccessKeys, finds_the_caller_by_a_key) {
  AccessKeys keys;
  EXPECT_TRUE(keys.empty());
  EXPECT_FALSE(keys.find("Bearer anything"));
  ASSERT_TRUE(keys.add("first-key", /*admin=*/false));
  ASSERT_TRUE(keys.add("second-key", /*admin=*/true));
  const auto first = keys.find("Bearer first-key");
  ASSERT_TRUE(first);
  EXPECT_FALSE(first->admin);
  EXPECT_EQ(keys.tenants()[first->tenant].name, "default");
  EXPECT_NE(first->tenant, Caller{}.tenant);
  const auto second = keys.find("bEARER   second-key");
  ASSERT_TRUE(second);
  EXPECT_TRUE(second->admin);
  EXPECT_EQ(second->tenant, first->tenant);
  for (const char* wrong : {"", "Bearer", "Bearer ", "first-key", "Basic first-key",
                            "Bearer first-ke", "Bearer first-key2", "Bearer First-key",
                            "Bearerfirst-key", "Bearer first-key second-key"}) {
    EXPECT_FALSE(keys.find(wrong)) << wrong;
  }
}

TEST(AccessKeys, reads_a_file) {
  const KeyFile file(std::string("# people\n") +
                     "\n"
                     "ann  key-of-ann   weight=3 requests=10 # heavy\r\n" +
                     "bob\tsha256:" + kSesameDigest + "\tadmin\n" +
                     "ann  other#key  weight=3 admin\n"
                     "anonymous key-of-someone");
  AccessKeys keys;
  const auto status = keys.read_file(file.path());
  ASSERT_TRUE(status) << status.error().message;
  const auto ann = keys.find("Bearer key-of-ann");
  const auto ann_again = keys.find("Bearer other#key");
  const auto bob = keys.find("Bearer opensesame");
  const auto someone = keys.find("Bearer key-of-someone");
  ASSERT_TRUE(ann && ann_again && bob && someone);
  EXPECT_EQ(ann->tenant, ann_again->tenant);
  EXPECT_NE(ann->tenant, bob->tenant);
  EXPECT_NE(someone->tenant, Caller{}.tenant);
  EXPECT_FALSE(ann->admin);
  EXPECT_TRUE(ann_again->admin && bob->admin);
  const Tenant& heavy = keys.tenants()[ann->tenant];
  EXPECT_EQ(heavy.name, "ann");
  EXPECT_EQ(heavy.weight(), 3u);
  EXPECT_EQ(heavy.requests_max, 10u);
  const Tenant& light = keys.tenants()[bob->tenant];
  EXPECT_EQ(light.weight(), 1u);
  EXPECT_EQ(light.requests_max, std::nullopt);
  EXPECT_FALSE(keys.find(std::string("Bearer sha256:") + kSesameDigest));
}

TEST(AccessKeys, says_what_is_wrong_without_the_key) {
  const struct {
    std::string text;
    std::string message;
  } cases[] = {
      {"ann\n", ":1: a line needs a name and a key"},
      {"# x\nann sEcrEt weight=0\n", ":2: weight takes a number from 1 to 1000"},
      {"ann sEcrEt weight=2x\n", ":1: weight takes a number"},
      {"ann sEcrEt requests=-1\n", ":1: requests takes a number"},
      {"ann sEcrEt requests=\n", ":1: requests takes a number"},
      {"ann sEcrEt weight=2\nann sEcrEt2 weight=3\n", ":2: an earlier line gives this name"},
      {"ann two sEcrEt\n", ":1: behind the key may stand"},
      {"a/b sEcrEt\n", ":1: a name is made of"},
      {std::string(65, 'n') + " sEcrEt\n", ":1: a name is made of"},
      {"ann sEcrEt\nbob sEcrEt\n", ":2: this key has been given before"},
      {"ann s\xc3\xa4sEcrEt\n", ":1: a key must consist of visible ASCII"},
      {"ann sha256:sEcrEt\n", ":1: \"sha256:\" must be followed by 64"},
      {std::string("ann sha256:") + kSesameDigest + "0\n", ":1: \"sha256:\" must be"},
  };
  for (const auto& one : cases) {
    const std::string message = error_of(one.text);
    EXPECT_THAT(message, ::testing::StartsWith(one.message)) << one.text;
    EXPECT_THAT(message, Not(HasSubstr("sEcrEt"))) << one.text;
  }
  AccessKeys keys;
  for (const char* bad : {"", "two words", "tab\t"}) EXPECT_FALSE(keys.add(bad, false)) << bad;
  const auto missing = keys.read_file("/no/such/file");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().message, "/no/such/file: can not be read: No such file or directory");
}

}  // namespace
}  // namespace kvasir::http
