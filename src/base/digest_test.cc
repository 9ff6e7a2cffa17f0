#include "base/digest.h"

#include <gtest/gtest.h>

#include <string_view>

namespace kvasir::base {
namespace {

std::string hex_of(Sha256& digest, std::string_view text) {
  digest.update(std::as_bytes(std::span(text)));
  return to_hex(digest.finish());
}

constexpr std::string_view kAbc =
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(Sha256, agrees_with_the_standard) {  // FIPS 180-2, appendix B
  Sha256 digest;
  EXPECT_EQ(hex_of(digest, "abc"), kAbc);
  EXPECT_EQ(hex_of(digest, ""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex_of(digest, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, pieces_and_copies_do_not_matter) {
  Sha256 digest;
  digest.update(std::as_bytes(std::span(std::string_view("a"))));
  Sha256 copy = digest;
  EXPECT_EQ(hex_of(copy, "bc"), kAbc);
  EXPECT_EQ(hex_of(digest, "bc"), kAbc);
}

TEST(Sha256, hex_is_lower_case_and_padded) {
  const std::array<uint8_t, 3> bytes = {0x00, 0x0a, 0xff};
  EXPECT_EQ(to_hex(bytes), "000aff");
}

}  // namespace
}  // namespace kvasir::base
