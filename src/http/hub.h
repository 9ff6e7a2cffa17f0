// What all connections of a server share.
//
// Thread: I/O thread only, but for `open`. Allocates: the set of connections.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/rng.h"
#include "http/mailbox.h"
#include "http/options.h"

namespace kvasir::http {

class Connection;

struct Hub {
  Limits limits;
  uint32_t connections_max = 0;
  Gate gate;
  Handler handler;
  std::shared_ptr<Mailbox> mailbox;
  base::RngKey id_key;  // of the request ids made up here

  // Whoever reads uses it and is done with it before the next one: idle connections need none.
  std::vector<char> read_buffer = std::vector<char>(64 << 10);
  std::unordered_set<std::shared_ptr<Connection>> connections;  // alive while they are in here
  std::atomic<uint32_t> open = 0;                               // how many they are
  bool draining = false;                                        // connections end after an answer
  uint64_t bodies_bytes = 0;  // of requests that are read or answered
  uint64_t ids_made = 0;

  std::string make_request_id();
};

}  // namespace kvasir::http
