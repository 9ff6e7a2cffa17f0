#include "serve/json_input.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "serve/testing.h"

namespace kvasir::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::json_of;
using ::testing::Not;

void expect_refused(const std::string& body, const std::string& problem) {
  const auto object = parse_object(body);
  ASSERT_FALSE(object.has_value()) << body;
  EXPECT_EQ(object.error().status, 400U);
  EXPECT_EQ(object.error().code, "invalid_json");
  EXPECT_THAT(object.error().message, HasSubstr(problem)) << body;
}

TEST(JsonInput, reads_an_object) {
  const auto object = parse_object(" {\"a\": [1, -2, 1.5, true, null, \"x\"], \"b\": {}}\r\n");
  ASSERT_TRUE(object.has_value()) << object.error().message;
  EXPECT_EQ(object->at("a"), json_of("[1, -2, 1.5, true, null, \"x\"]"));
  EXPECT_NE(find(*object, "b"), nullptr);
  EXPECT_EQ(find(*object, "c"), nullptr);
}

TEST(JsonInput, null_means_absent) {
  EXPECT_EQ(find(json_of("{\"a\": null}").as_object(), "a"), nullptr);
}

TEST(JsonInput, refuses_what_is_not_one_object) {
  expect_refused("", "empty");
  expect_refused(" \n\t", "empty");
  expect_refused("[]", "not an object");
  expect_refused("\"a\"", "not an object");
  expect_refused("null", "not an object");
  expect_refused("{} {}", "More follows");
  expect_refused("{}x", "More follows");
  expect_refused("{\"a\": 1", "not valid JSON");
  expect_refused("{\"a\": 1,}", "not valid JSON");
  expect_refused("{\"a\" 1}", "not valid JSON");
  expect_refused("{a: 1}", "not valid JSON");
  expect_refused("{'a': 1}", "not valid JSON");
  expect_refused("{\"a\": 1} // no", "More follows");
  expect_refused("/* no */ {}", "not valid JSON");
  expect_refused("{\"a\": \"tab\tinside\"}", "not valid JSON");
  expect_refused("{\"a\": \"\\x41\"}", "not valid JSON");
  expect_refused(std::string("{\"a\": 1}\0", 9), "More follows");
}

TEST(JsonInput, refuses_a_field_given_twice_at_any_depth) {
  expect_refused("{\"a\": 1, \"a\": 1}", "twice");
  expect_refused("{\"a\": 1, \"\\u0061\": 2}", "twice");
  expect_refused("{\"a\": [{\"b\": {\"c\": 1, \"c\": {\"d\": 2}}}]}", "twice");
  EXPECT_TRUE(parse_object("{\"a\": {\"a\": [{\"a\": 1}, {\"a\": 1}]}}").has_value());
}

TEST(JsonInput, refuses_lone_surrogates) {
  expect_refused(R"({"a": "\ud800"})", "not valid JSON");
  expect_refused(R"({"a": "\udc00"})", "not valid JSON");
  expect_refused(R"({"a": "\ud800\u0041"})", "not valid JSON");
  expect_refused(R"({"a": "\ud800\ud800"})", "not valid JSON");
  expect_refused(R"({"a": "\ud800 and much text behind it"})", "not valid JSON");
  expect_refused(R"({"\udfff and much text behind it": 1})", "not valid JSON");
  const auto pair = parse_object(R"({"a": "\ud83d\ude00"})");
  ASSERT_TRUE(pair.has_value());
  EXPECT_EQ(pair->at("a").as_string(), "\xF0\x9F\x98\x80");
}

TEST(JsonInput, refuses_what_is_not_utf8) {
  expect_refused("{\"a\": \"\x80\"}", "not valid UTF-8 at byte 7");
  expect_refused("{\"a\": \"\xED\xA0\x80\"}", "not valid UTF-8");
  expect_refused("\xEF\xBB\xBF{}", "not valid JSON");  // a byte order mark is none of JSON's
}

TEST(JsonInput, refuses_deep_and_large_documents) {
  const auto nested = [](size_t depth) {
    return "{\"a\": " + std::string(depth - 1, '[') + std::string(depth - 1, ']') + "}";
  };
  EXPECT_TRUE(parse_object(nested(kJsonDepthMax)).has_value());
  expect_refused(nested(kJsonDepthMax + 1), "deeper than 64");
  expect_refused("{\"a\": " + std::string(1'000'000, '['), "deeper than 64");
  std::string many = "{\"a\": [0";
  for (size_t i = 0; i < kJsonValuesMax; ++i) many += ",0";
  expect_refused(many + "]}", "more than 1048576 values");
}

TEST(JsonInput, refuses_numbers_that_are_none_or_too_large) {
  for (const char* number :
       {"NaN", "Infinity", "-Infinity", "+1", "01", ".5", "1.", "0x10", "1e"}) {
    expect_refused(std::string("{\"a\": ") + number + "}", "not valid JSON");
  }
  expect_refused("{\"a\": 1e309}", "too large");
  expect_refused("{\"a\": -1e309}", "too large");
  expect_refused("{\"a\": 1e99999999999999999999}", "too large");
  expect_refused("{\"a\": " + std::string(400, '9') + "}", "too large");
}

TEST(JsonInput, errors_do_not_repeat_the_body) {
  for (const char* body :
       {"{\"secret\": secret}", "{\"secret\": 1, \"secret\": 2}", "\"secret\""}) {
    const auto object = parse_object(body);
    ASSERT_FALSE(object.has_value());
    EXPECT_THAT(object.error().message, Not(HasSubstr("secret")));
  }
}

TEST(JsonInput, whole_numbers_may_be_written_as_doubles) {
  const IntegerRange range{.min = -10, .max = 1000};
  const auto read = [&](const char* text) { return read_integer(json_of(text), "f", range); };
  EXPECT_EQ(read("7"), 7);
  EXPECT_EQ(read("7.0"), 7);
  EXPECT_EQ(read("1e3"), 1000);
  EXPECT_EQ(read("-0"), 0);
  EXPECT_EQ(read("-0.0"), 0);
  EXPECT_EQ(read("-10"), -10);
  for (const char* wrong : {"1.5", "-11", "1001", "1e300", "18446744073709551615", "\"1\"", "true",
                            "[1]", "{}", "null"}) {
    const auto number = read(wrong);
    ASSERT_FALSE(number.has_value()) << wrong;
    EXPECT_EQ(number.error().param, "f");
    EXPECT_THAT(number.error().message, HasSubstr("a whole number from -10 to 1000"));
  }
}

TEST(JsonInput, all_of_int64_can_be_asked_for) {
  const IntegerRange range{.min = std::numeric_limits<int64_t>::min(),
                           .max = std::numeric_limits<int64_t>::max()};
  EXPECT_EQ(read_integer(json_of("9223372036854775807"), "f", range), range.max);
  EXPECT_EQ(read_integer(json_of("-9223372036854775808"), "f", range), range.min);
  EXPECT_FALSE(read_integer(json_of("9223372036854775808"), "f", range).has_value());
  EXPECT_FALSE(read_integer(json_of("-9223372036854775809"), "f", range).has_value());
  EXPECT_FALSE(read_integer(json_of("9223372036854775808.0"), "f", range).has_value());
}

TEST(JsonInput, numbers_are_finite_and_in_range) {
  const NumberRange range{.min = 0, .max = 2};
  EXPECT_EQ(read_number(json_of("2"), "f", range), 2.0);
  EXPECT_EQ(read_number(json_of("0.5"), "f", range), 0.5);
  const auto refused = [&](const boost::json::value& value) {
    return !read_number(value, "f", range).has_value();
  };
  EXPECT_TRUE(refused(std::numeric_limits<double>::quiet_NaN()));
  EXPECT_TRUE(refused(std::numeric_limits<double>::infinity()));
  for (const char* wrong : {"-0.1", "2.0001", "\"1\"", "false", "18446744073709551615"}) {
    EXPECT_TRUE(refused(json_of(wrong))) << wrong;
  }
}

TEST(JsonInput, token_ids_are_of_the_vocabulary) {
  EXPECT_THAT(read_tokens(json_of("[0, 9, 3.0]"), "ids", 10).value(), ElementsAre(0, 9, 3));
  for (const char* wrong : {"[1, 10]", "[1, -1]", "[1, 1.5]", "[1, \"1\"]", "[1, 4294967297]"}) {
    const auto ids = read_tokens(json_of(wrong), "ids", 10);
    ASSERT_FALSE(ids.has_value()) << wrong;
    EXPECT_EQ(ids.error().param, "ids[1]");
  }
  EXPECT_EQ(read_tokens(json_of("5"), "ids", 10).error().param, "ids");
}

}  // namespace
}  // namespace kvasir::serve
