#include "http/tls_session.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "http/testing_tls.h"

namespace kvasir::http {
namespace {

using testing::make_client_session;
using testing::make_tls;
using testing::OwnedTls;
using Input = TlsSession::Input;

// The other side, as a function of bytes as well.
class MemoryClient {
 public:
  MemoryClient() : session_(make_client_session()) {
    SSL_set_bio(session_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
  }

  // Goes on with the handshake, reads what has come, and returns what is to be carried.
  std::string step() {
    char buffer[4096];
    size_t bytes = 0;
    while (SSL_read_ex(session_.get(), buffer, sizeof buffer, &bytes) == 1) {
      received_.append(buffer, bytes);
    }
    std::string records(BIO_ctrl_pending(SSL_get_wbio(session_.get())), '\0');
    BIO_read(SSL_get_wbio(session_.get()), records.data(), static_cast<int>(records.size()));
    return records;
  }
  void give(std::string_view records) {
    BIO_write(SSL_get_rbio(session_.get()), records.data(), static_cast<int>(records.size()));
  }
  void send(std::string_view plain) {
    size_t bytes = 0;
    CHECK(SSL_write_ex(session_.get(), plain.data(), plain.size(), &bytes) == 1);
  }
  void end() { SSL_shutdown(session_.get()); }
  bool told_end() const { return (SSL_get_shutdown(session_.get()) & SSL_RECEIVED_SHUTDOWN) != 0; }
  const std::string& received() const { return received_; }

 private:
  OwnedTls<SSL> session_;
  std::string received_;
};

struct Pair {
  TlsSession server{*make_tls()};
  MemoryClient client;
  std::string received = {};  // by the server
  Input input = Input::kOpen;

  // Carries records both ways until there are none left.
  void carry(size_t piece_bytes = 1 << 20) {
    while (true) {
      const std::string records = client.step();
      if (records.empty() && server.records().empty()) return;
      for (size_t at = 0; at < records.size(); at += piece_bytes) {
        input = server.receive(std::string_view(records).substr(at, piece_bytes), received);
      }
      while (!server.records().empty()) {
        const std::string_view front = server.records().front();
        client.give(front);
        server.records().sent(front.size());
      }
    }
  }
};

TEST(TlsSession, carries_bytes_both_ways_in_pieces_of_any_size) {
  const std::string question(40'000, 'q');
  const std::string answer(100'000, 'a');
  for (const size_t piece_bytes : {1UL, 7UL, 1000UL, 1UL << 20}) {
    Pair pair;
    EXPECT_FALSE(pair.server.established());
    pair.carry(piece_bytes);
    ASSERT_TRUE(pair.server.established());
    pair.client.send(question);
    pair.carry(piece_bytes);
    EXPECT_TRUE(pair.received == question) << piece_bytes;
    ASSERT_TRUE(pair.server.send(answer));
    pair.carry(piece_bytes);
    EXPECT_TRUE(pair.client.received() == answer) << piece_bytes;
    EXPECT_EQ(pair.input, Input::kOpen);
  }
}

TEST(TlsSession, each_side_may_end_before_the_other) {
  Pair pair;
  pair.carry();
  pair.client.send("last");
  pair.client.end();
  pair.carry();
  EXPECT_EQ(pair.received, "last");
  EXPECT_EQ(pair.input, Input::kEnded);
  EXPECT_TRUE(pair.server.send("still"));
  pair.server.end();
  const size_t bytes = pair.server.records().bytes();
  pair.server.end();  // once is enough
  EXPECT_EQ(pair.server.records().bytes(), bytes);
  pair.carry();
  EXPECT_EQ(pair.client.received(), "still");
  EXPECT_TRUE(pair.client.told_end());
}

TEST(TlsSession, fails_on_what_is_no_tls_and_stays_failed) {
  for (const std::string& input :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("nonsense nonsense nonsense"),
        std::string("\x16\x03\x01\x00\x05zzzzz", 10)}) {
    TlsSession session(*make_tls());
    std::string plain;
    EXPECT_EQ(session.receive(input, plain), Input::kFailed) << input;
    session.records().sent(session.records().front().size());
    session.end();
    EXPECT_TRUE(session.records().empty()) << input;
    EXPECT_EQ(session.receive(MemoryClient().step(), plain), Input::kFailed) << input;
    EXPECT_FALSE(session.established()) << input;
    EXPECT_EQ(plain, "") << input;
  }
}

TEST(TlsSession, fails_on_a_record_that_was_changed_on_its_way) {
  Pair pair;
  pair.carry();
  pair.client.send("a question");
  std::string records = pair.client.step();
  records.back() = static_cast<char>(records.back() ^ 1);
  EXPECT_EQ(pair.server.receive(records, pair.received), Input::kFailed);
  EXPECT_EQ(pair.received, "");
  EXPECT_FALSE(pair.server.send("an answer"));
}

TEST(TlsSession, survives_any_change_of_a_handshake) {
  const auto tls = make_tls();
  const std::string hello = MemoryClient().step();
  for (size_t at = 0; at < hello.size(); ++at) {
    for (const int bits : {0x01, 0x80, 0xff}) {
      std::string changed = hello;
      changed[at] = static_cast<char>(changed[at] ^ bits);
      TlsSession session(*tls);
      std::string plain;
      session.receive(changed, plain);
      session.receive(hello, plain);
      session.end();
      EXPECT_FALSE(session.established());
      EXPECT_EQ(plain, "");
    }
  }
}

}  // namespace
}  // namespace kvasir::http
