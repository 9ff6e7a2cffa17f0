// load: many clients at once of a server that speaks OpenAI's /v1/completions, Kvasir's or another.
//
// Prompts are token ids drawn from a seed, so that no tokenizer is needed and every run sends the
// same; answers are streams of a fixed length. Each stream is checked to the last event: whole
// events, one id, one finish_reason, as many tokens as asked for, [DONE] at the end.
//
// One line of JSON says what came of it. tok_s counts prompt and generated tokens of complete
// streams by the wall clock, as `bench batch` does; itl_ms are the gaps between pieces of text.
// With several API keys, tenants, a line for each follows.
//
// Thread: one caller, who waits; sockets are driven by that thread alone. Allocates: freely, in
// proportion to the streams open at a time.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "bench/workloads.h"

namespace kvasir::bench {

struct LoadOptions {
  std::string url = "http://127.0.0.1:8080";
  std::string model;                  // empty: the server's own
  std::vector<std::string> api_keys;  // several: each is a tenant, drawn at random per request
  uint32_t flood = 1;                 // requests of the first key for one of each other

  uint32_t sequences = 64;           // streams at once, where no rate is given
  std::optional<uint64_t> requests;  // nullopt: as many as sequences, or until duration_s
  std::optional<double> rate;        // arrivals per second, however many streams are open
  std::optional<double> duration_s;  // when it has passed, open streams are left
  double timeout_s = 300.0;          // of a stream, from its arrival to [DONE]

  uint32_t tokens = 64;        // of each prompt
  uint32_t shared_prefix = 0;  // of these, common to all
  uint32_t generate = 64;
  bool mixed = false;  // every other request samples, with a seed and temperature 0.8
  uint64_t seed = 1;

  std::optional<std::string> check_file;   // complete streams are written there
  std::optional<std::string> verify_file;  // send what stands there, one by one, and compare
  uint32_t samples = 0;                    // so many of them; 0: all
};

// Error: the server is not there, a file, Ctrl-C, a stream that failed or, verifying, one whose
// text differs. Streams refused with 429 are counted and are no error.
base::Status bench_load(const LoadOptions& options, const BenchHooks& hooks);

}  // namespace kvasir::bench
