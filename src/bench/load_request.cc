#include "bench/load_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <charconv>
#include <cmath>

#include "base/rng.h"

namespace kvasir::bench {
namespace {

// Ordinary tokens in every common vocabulary: special ones stand below, the smallest has 32,000.
constexpr uint32_t kFirstId = 100;
constexpr uint32_t kIds = 30'000 - kFirstId;

// What the draws of one seed are for.
enum Draw : uint64_t { kSharedPrefix, kArrival, kKey, kSample, kPrompts };

TokenId draw_id(uint64_t seed, uint64_t stream, uint64_t index) {
  const base::RngKey key{.seed = seed, .choice = stream};
  return static_cast<TokenId>(kFirstId + base::random_bits(key, index)[0] % kIds);
}

size_t draw_key(const LoadOptions& options, uint64_t index) {
  if (options.api_keys.size() < 2) return 0;
  const double others = static_cast<double>(options.api_keys.size() - 1);
  const double unit = base::random_unit({.seed = options.seed, .choice = kKey}, index);
  const double place = unit * (options.flood + others);
  if (place < options.flood) return 0;
  return 1 + static_cast<size_t>(std::min(place - options.flood, others - 0.5));
}

}  // namespace

base::Result<ServerAddress> parse_server_url(std::string_view url) {
  const auto refuse = [&] {
    return base::bad_input(fmt::format("--url {}: expected http://HOST:PORT", url));
  };
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return refuse();
  std::string_view rest = url.substr(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  ServerAddress address{.authority = std::string(rest)};
  const bool bracketed = rest.starts_with('[');
  const size_t host_end = bracketed ? rest.find(']') : rest.find(':');
  if (bracketed && host_end == std::string_view::npos) return refuse();
  address.host = rest.substr(bracketed ? 1 : 0, bracketed ? host_end - 1 : host_end);
  rest.remove_prefix(std::min(rest.size(), bracketed ? host_end + 1 : host_end));
  if (address.host.empty() || address.host.find_first_of("/?#@ ") != std::string::npos) {
    return refuse();
  }
  if (rest.empty()) return address;
  const char* const end = rest.data() + rest.size();
  const auto parsed = std::from_chars(rest.data() + 1, end, address.port);
  const bool whole = parsed.ec == std::errc() && parsed.ptr == end;
  if (!rest.starts_with(':') || !whole || address.port == 0) return refuse();
  return address;
}

std::vector<TokenId> load_prompt(const LoadOptions& options, uint64_t index) {
  std::vector<TokenId> tokens;
  tokens.reserve(options.tokens);
  for (uint32_t i = 0; i < options.tokens; ++i) {
    const uint64_t stream = i < options.shared_prefix ? kSharedPrefix : kPrompts + index;
    tokens.push_back(draw_id(options.seed, stream, i));
  }
  return tokens;
}

LoadRequest make_load_request(const LoadOptions& options, uint64_t index) {
  boost::json::object body;
  if (!options.model.empty()) body["model"] = options.model;
  boost::json::array& prompt = body["prompt"].emplace_array();
  for (const TokenId token : load_prompt(options, index)) prompt.push_back(token);
  body["max_tokens"] = options.generate;
  const bool samples = options.mixed && index % 2 == 1;
  body["temperature"] = samples ? 0.8 : 0.0;
  if (samples) body["seed"] = index;
  body["ignore_eos"] = true;
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}};
  if (options.check_file) body["return_token_ids"] = true;
  return {.index = index,
          .key = draw_key(options, index),
          .prompt_tokens = options.tokens,
          .tokens_wanted = options.generate,
          .body = boost::json::serialize(body)};
}

uint64_t PoissonArrivals::next_us() {
  const double unit = base::random_unit({.seed = seed_, .choice = kArrival}, drawn_++);
  last_s_ -= std::log1p(-unit) / rate_per_s_;
  return static_cast<uint64_t>(last_s_ * 1e6);
}

std::vector<size_t> draw_samples(size_t total, size_t count, uint64_t seed) {
  count = std::min(count, total);
  std::vector<size_t> samples;
  samples.reserve(count);
  for (size_t i = 0; i < count; ++i) {  // one of each of `count` equal parts
    const size_t begin = i * total / count;
    const size_t end = (i + 1) * total / count;
    const uint32_t bits = base::random_bits({.seed = seed, .choice = kSample}, i)[0];
    samples.push_back(begin + bits % (end - begin));
  }
  return samples;
}

}  // namespace kvasir::bench
