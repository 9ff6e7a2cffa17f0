// TLS on a listener. What is promised with and without TLS is tested where it is tested without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "http/testing_client.h"

namespace kvasir::http {
namespace {

using std::chrono::milliseconds;
using testing::certificate_pem;
using testing::Client;
using testing::EchoOver;
using testing::EchoServer;
using testing::eventually;
using ::testing::HasSubstr;
using testing::key_pem;
using testing::make_key;
using testing::make_tls;
using testing::OwnedTls;
using testing::TempFile;
using testing::Wire;

const std::string kGet = testing::get("/a");
const std::string kOpen = testing::get("/open");
constexpr std::string_view kHelloBegins = "\x16\x03\x01\x02\x80\x01";  // and 638 bytes more

TEST(TlsContext, loads_a_certificate_with_its_key) {
  const auto key = make_key();
  const TempFile certificate_file(certificate_pem(key.get()));
  const TempFile key_file(key_pem(key.get()));
  EXPECT_TRUE(TlsContext::load(certificate_file.path(), key_file.path()).has_value());
  const TempFile both(key_pem(key.get()) + certificate_pem(key.get()));
  EXPECT_TRUE(TlsContext::load(both.path(), both.path()).has_value());
}

TEST(TlsContext, says_which_file_can_not_be_used_and_why) {
  const auto key = make_key();
  const auto other_key = make_key();
  const OwnedTls<EVP_PKEY> other_kind(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519"));
  const TempFile certificate(certificate_pem(key.get()));
  const TempFile good_key(key_pem(key.get()));
  const TempFile wrong_key(key_pem(other_key.get()));
  const TempFile wrong_kind(key_pem(other_kind.get()));
  const TempFile locked_key(key_pem(key.get(), "secret"));
  const TempFile empty("");
  const TempFile broken("-----BEGIN CERTIFICATE-----\nbm8=\n-----END CERTIFICATE-----\n");
  const std::string folder = ::testing::TempDir();
  const struct {
    std::string certificate;
    std::string key;
    std::string says;
  } cases[] = {
      {"none.pem", good_key.path(), "none.pem: can not be read: No such file or directory"},
      {certificate.path(), "none.pem", "none.pem: can not be read: No such file or directory"},
      {folder, good_key.path(), folder + ": can not be read: Is a directory"},
      {certificate.path(), folder, folder + ": can not be read: Is a directory"},
      {empty.path(), good_key.path(), empty.path() + ": holds no certificates"},
      {broken.path(), good_key.path(), broken.path() + ": holds no certificates"},
      {good_key.path(), good_key.path(), good_key.path() + ": holds no certificates"},
      {certificate.path(), empty.path(), empty.path() + ": holds no private key"},
      {certificate.path(), certificate.path(), certificate.path() + ": holds no private key"},
      {certificate.path(), wrong_key.path(), wrong_key.path() + ": the key is not that of"},
      {certificate.path(), wrong_kind.path(), wrong_kind.path() + ": the key is not that of"},
      {certificate.path(), locked_key.path(), locked_key.path() + ": the key is encrypted"},
  };
  for (const auto& one : cases) {
    const auto loaded = TlsContext::load(one.certificate, one.key);
    ASSERT_FALSE(loaded.has_value()) << one.says;
    EXPECT_EQ(loaded.error().kind, base::ErrorKind::kBadInput) << one.says;
    EXPECT_THAT(loaded.error().message, HasSubstr(one.says));
    EXPECT_EQ(loaded.error().message.find('\n'), std::string::npos) << one.says;
  }
}

TEST(Tls, shows_the_whole_chain) {
  const auto issuer = make_key();
  EchoServer echo({}, {{.tls = make_tls(certificate_pem(issuer.get()))}});
  Client client = echo.connect();
  EXPECT_EQ(sk_X509_num(SSL_get_peer_cert_chain(client.tls().native())), 2);
  EXPECT_EQ(client.send(kGet).read_reply().body, "GET /a ");
}

TEST(Tls, takes_no_version_before_1_2) {
  EchoOver echo(Wire::kTls);
  const struct {
    int version;
    bool taken;
  } cases[] = {{TLS1_VERSION, false},
               {TLS1_1_VERSION, false},
               {TLS1_2_VERSION, true},
               {TLS1_3_VERSION, true}};
  for (const auto& [version, taken] : cases) {
    Client client;
    client.connect(echo.port());
    ASSERT_EQ(client.try_tls(version), taken) << version;
    if (!taken) continue;
    EXPECT_EQ(SSL_version(client.tls().native()), version);
    EXPECT_EQ(client.send(kGet).read_reply().body, "GET /a ") << version;
  }
}

TEST(Tls, drops_what_is_no_tls_without_an_answer) {
  EchoOver echo(Wire::kTls, {.linger_ms = 100});
  for (const std::string& input :
       {kGet, std::string("nonsense\r\n\r\n"), std::string(100'000, 'x'), std::string(1000, '\0'),
        std::string("\x16\x03\x01\x00\x05zzzzz", 10)}) {
    Client client;
    client.connect(echo.port()).send(input);
    EXPECT_LE(client.read_to_end().size(), 7u) << input.substr(0, 20);  // an alert at most
    EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
  }
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
}

TEST(Tls, is_refused_by_a_listener_without) {
  EchoServer echo;
  Client client;
  EXPECT_FALSE(client.connect(echo.port()).try_tls());
  EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
}

TEST(Tls, has_listeners_with_and_without_in_one_server) {
  EchoServer echo({}, {{.tls = make_tls()}, {.admin = true}});
  EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
  Client plain;
  EXPECT_EQ(plain.connect(echo.server().ports()[1]).send(kGet).read_reply().status, 200u);
}

TEST(Tls, cuts_slow_handshakes_off) {
  EchoOver echo(Wire::kTls, {.head_ms = 100});
  Client stalled;
  stalled.connect(echo.port()).send(kHelloBegins);
  Client slow;
  slow.connect(echo.port()).send(kHelloBegins);
  // Every byte comes soon after the one before, and yet the handshake takes too long.
  std::atomic<bool> stopped = false;
  std::thread dripping([&] {
    while (!stopped) {
      slow.send("X");
      std::this_thread::sleep_for(milliseconds(5));
    }
  });
  EXPECT_EQ(slow.read_to_end(), "");
  stopped = true;
  dripping.join();
  EXPECT_EQ(stalled.read_to_end(), "");
  // Whoever has agreed in time may take longer for a request.
  Client good = echo.connect();
  std::this_thread::sleep_for(milliseconds(150));
  EXPECT_EQ(good.send(kGet).read_reply().status, 200u);
}

TEST(Tls, closes_idle_connections_whether_they_have_agreed_or_not) {
  EchoOver echo(Wire::kTls, {.idle_ms = 100});
  Client silent;
  silent.connect(echo.port());
  Client idle = echo.connect();
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(idle.told_end());
  EXPECT_TRUE(silent.closed());
}

TEST(Tls, closes_connections_beyond_the_limit_before_they_agree) {
  EchoOver echo(Wire::kTls, {.connections_max = 1});
  Client first = echo.connect();
  Client second;
  EXPECT_FALSE(second.connect(echo.port()).try_tls());
  EXPECT_EQ(first.send(kGet).read_reply().status, 200u);
}

TEST(Tls, drains_without_waiting_for_handshakes) {
  EchoOver echo(Wire::kTls);
  Client begun;
  begun.connect(echo.port()).send(kHelloBegins);
  ASSERT_TRUE(eventually([&] { return echo.server().connections() == 1; }));
  echo.server().stop_accepting();
  EXPECT_EQ(begun.read_to_end(), "");
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
}

TEST(Tls, ends_without_waiting_for_the_client_to_end) {
  EchoOver echo(Wire::kTls, {.linger_ms = 100});
  Client client = echo.connect();
  client.send("GET /a HTTP/1.1\r\nHost: me\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(client.read_reply().status, 200u);
  EXPECT_TRUE(eventually([&] { return echo.server().connections() == 0; }));
  EXPECT_TRUE(client.closed());
  EXPECT_TRUE(client.told_end());
}

// The client does not end the connection below.
TEST(Tls, ends_when_the_client_does) {
  EchoOver echo(Wire::kTls);
  Client idle = echo.connect();
  ASSERT_EQ(idle.send(kGet).read_reply().status, 200u);
  idle.tls().send_end();
  EXPECT_TRUE(idle.closed());
  EXPECT_TRUE(idle.told_end());

  Client waiting = echo.connect();
  waiting.send(kOpen);
  const auto exchange = echo.take();
  std::atomic<bool> gone = false;
  exchange->on_gone([&gone] { gone = true; });
  waiting.tls().send_end();
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
}

TEST(Tls, goes_on_when_the_client_changes_its_keys) {
  EchoOver echo(Wire::kTls);
  Client client;
  ASSERT_TRUE(client.connect(echo.port()).try_tls(TLS1_3_VERSION));
  for (int i = 0; i < 20; ++i) {
    ASSERT_EQ(SSL_key_update(client.tls().native(), SSL_KEY_UPDATE_REQUESTED), 1);
    ASSERT_EQ(client.send(testing::post("/b", "x")).read_reply().body, "POST /b x");
  }
}

// The server owes an answer to each of these, and the client takes none. It must not keep them all.
TEST(Tls, hears_no_more_of_a_client_that_makes_it_talk_to_itself) {
  EchoOver echo(Wire::kTls, {.write_stall_ms = 200});
  Client client = echo.connect(8 << 10);
  client.send(kOpen);
  const auto exchange = echo.take();
  std::atomic<bool> gone = false;
  exchange->on_gone([&gone] { gone = true; });
  std::thread flooding([&] {
    SSL* session = client.tls().native();
    while (!gone && SSL_key_update(session, SSL_KEY_UPDATE_REQUESTED) == 1 &&
           SSL_do_handshake(session) == 1) {
    }
  });
  exchange->begin_stream("text/plain");
  exchange->write(std::string(32 << 20, 'x'));
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
  flooding.join();
  EXPECT_EQ(echo.connect().send(kGet).read_reply().status, 200u);
}

}  // namespace
}  // namespace kvasir::http
