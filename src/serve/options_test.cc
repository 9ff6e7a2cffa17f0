#include "serve/options.h"

#include <gtest/gtest.h>

#include <string>

namespace kvasir::serve {
namespace {

TEST(ServeOptions, only_addresses_of_this_machine_are_loopback) {
  for (const char* host : {"localhost", "127.0.0.1", "127.1.2.3", "::1"}) {
    EXPECT_TRUE(is_loopback(host)) << host;
  }
  for (const char* host : {"0.0.0.0", "::", "0", "192.168.1.2", "127.example.org", "", "example"}) {
    EXPECT_FALSE(is_loopback(host)) << host;
  }
}

TEST(ServeOptions, an_address_that_others_reach_needs_keys) {
  ServeFlags flags;
  EXPECT_TRUE(check_flags(flags).has_value());
  flags.host = "0.0.0.0";
  const auto refused = check_flags(flags);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("--insecure"), std::string::npos);
  flags.api_keys = {"a-key-that-is-long-enough"};
  EXPECT_TRUE(check_flags(flags).has_value());
  flags.api_keys.clear();
  flags.insecure = true;
  EXPECT_TRUE(check_flags(flags).has_value());
}

TEST(ServeOptions, so_does_an_admin_listener) {
  ServeFlags flags;
  flags.admin_host = "0.0.0.0";
  EXPECT_TRUE(check_flags(flags).has_value()) << "there is none";
  flags.admin_port = 0;
  EXPECT_FALSE(check_flags(flags).has_value());
}

TEST(ServeOptions, tls_needs_a_certificate_and_its_key) {
  const auto message = [](const ServeFlags& flags) {
    const auto checked = check_flags(flags);
    return checked.has_value() ? std::string() : checked.error().message;
  };
  const struct {
    ServeFlags flags;
    const char* says;
  } cases[] = {
      {{.tls_certificate = "cert.pem"}, "goes with --tls-key"},
      {{.tls_key = "key.pem"}, "goes with --tls-cert"},
      {{.tls_certificate = "", .tls_key = ""}, "--tls-cert is empty"},
      {{.tls_certificate = "cert.pem", .tls_key = ""}, "--tls-key is empty"},
      {{.tls_certificate = "none.pem", .tls_key = "key.pem"}, "none.pem: can not be read"},
  };
  for (const auto& one : cases) {
    EXPECT_NE(message(one.flags).find(one.says), std::string::npos) << one.says;
  }
}

TEST(ServeOptions, values_out_of_range_are_named) {
  const auto message = [](const ServeFlags& flags) {
    const auto checked = check_flags(flags);
    return checked.has_value() ? std::string() : checked.error().message;
  };
  EXPECT_NE(message({.port = 70'000}).find("--port"), std::string::npos);
  EXPECT_NE(message({.max_queue = UINT32_MAX}).find("--max-queue"), std::string::npos);
  EXPECT_NE(message({.itl_target_ms = -1.0}).find("--itl-target-ms"), std::string::npos);
  EXPECT_NE(message({.drain_timeout_s = 1e300}).find("--drain-timeout"), std::string::npos);
  EXPECT_NE(message({.max_body_bytes = 1}).find("--max-body"), std::string::npos);
}

TEST(ServeOptions, the_engine_has_a_place_for_everything_that_may_wait) {
  const api::EngineOptions engine =
      server_engine({.max_queue = 100, .itl_target_ms = 50.0}, {}, {.sequences_max = 8});
  EXPECT_EQ(engine.requests_max, 108U);
  EXPECT_EQ(engine.step_target_us, 50'000U);
  EXPECT_GE(engine.logit_rows_max, 8U);
}

}  // namespace
}  // namespace kvasir::serve
