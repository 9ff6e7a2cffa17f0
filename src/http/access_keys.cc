#include "http/access_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <span>
#include <utility>

namespace kvasir::http {
namespace {

constexpr std::string_view kDefaultTenant = "default";
constexpr std::string_view kDigestPrefix = "sha256:";
constexpr size_t kAnonymous = 0;  // the tenant that has no keys
constexpr size_t kNameCharactersMax = 64;
constexpr uint32_t kWeightMax = 1000;
constexpr uint32_t kRequestsMax = 1'000'000;

base::Sha256Bytes digest_of(std::string_view key) {
  base::Sha256 digest;
  digest.update(std::as_bytes(std::span(key)));
  return digest.finish();
}

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r';
}

// Words between spaces, up to one that begins a comment.
std::vector<std::string_view> words_of(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    while (!line.empty() && is_space(line.front())) line.remove_prefix(1);
    if (line.empty() || line.front() == '#') return words;
    const auto end = std::ranges::find_if(line, is_space);
    words.push_back(line.substr(0, static_cast<size_t>(end - line.begin())));
    line.remove_prefix(words.back().size());
  }
}

bool is_name(std::string_view name) {
  return name.size() <= kNameCharactersMax && std::ranges::all_of(name, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '.' || c == '_' || c == '-';
         });
}

// Visible ASCII, as it can stand in a field of a request.
bool is_key(std::string_view key) {
  return !key.empty() && std::ranges::all_of(key, [](char c) { return c > ' ' && c < 0x7f; });
}

std::optional<base::Sha256Bytes> parse_digest(std::string_view hex) {
  base::Sha256Bytes digest{};
  if (hex.size() != 2 * digest.size()) return std::nullopt;
  for (size_t i = 0; i < digest.size(); ++i) {
    const char* first = hex.data() + 2 * i;
    const auto [end, error] = std::from_chars(first, first + 2, digest[i], 16);
    if (error != std::errc() || end != first + 2) return std::nullopt;
  }
  return digest;
}

// "name=5" with 1 <= value <= max.
std::optional<uint32_t> parse_option(std::string_view word, std::string_view name, uint32_t max) {
  uint32_t value = 0;
  const char* last = word.data() + word.size();
  const auto [end, error] = std::from_chars(word.data() + name.size(), last, value);
  if (error != std::errc() || end != last || value < 1 || value > max) return std::nullopt;
  return value;
}

// Sets a tenant's option, unless an earlier line has set it to something else.
base::Status set_once(std::optional<uint32_t>& option, std::optional<uint32_t> value,
                      std::string_view name, uint32_t max) {
  if (!value) return base::bad_input(fmt::format("{} takes a number from 1 to {}", name, max));
  if (option && *option != *value) {
    return base::bad_input(fmt::format("an earlier line gives this name another {}", name));
  }
  option = value;
  return {};
}

}  // namespace

base::Status AccessKeys::add(std::string_view key, bool admin) {
  if (!is_key(key)) return base::bad_input("a key must consist of visible ASCII characters");
  return add_digest(digest_of(key), {.tenant = tenant_named(kDefaultTenant), .admin = admin});
}

base::Status AccessKeys::read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return base::bad_input(fmt::format("{}: can not be read: {}", path, std::strerror(errno)));
  }
  std::string line;
  for (size_t number = 1; std::getline(file, line); ++number) {
    if (auto status = read_line(line); !status) {
      return base::bad_input(fmt::format("{}:{}: {}", path, number, status.error().message));
    }
  }
  if (file.bad()) return base::runtime_error(path + ": reading failed");
  return {};
}

base::Status AccessKeys::read_line(std::string_view line) {
  const std::vector<std::string_view> words = words_of(line);
  if (words.empty()) return {};
  if (words.size() < 2) return base::bad_input("a line needs a name and a key");
  if (!is_name(words[0])) {
    return base::bad_input(
        fmt::format("a name is made of letters, digits, '.', '_' and '-', at "
                    "most {} of them",
                    kNameCharactersMax));
  }
  const bool hashed = words[1].starts_with(kDigestPrefix);
  if (!is_key(words[1])) return base::bad_input("a key must consist of visible ASCII characters");
  const auto digest = hashed ? parse_digest(words[1].substr(kDigestPrefix.size()))
                             : std::optional(digest_of(words[1]));
  if (!digest) return base::bad_input("\"sha256:\" must be followed by 64 hexadecimal digits");

  Caller caller{.tenant = tenant_named(words[0])};
  Tenant& tenant = tenants_[caller.tenant];
  for (const std::string_view word : std::span(words).subspan(2)) {
    if (word == "admin") {
      caller.admin = true;
    } else if (word.starts_with("weight=")) {
      RETURN_IF_ERROR(set_once(tenant.weight_given, parse_option(word, "weight=", kWeightMax),
                               "weight", kWeightMax));
    } else if (word.starts_with("requests=")) {
      RETURN_IF_ERROR(set_once(tenant.requests_max, parse_option(word, "requests=", kRequestsMax),
                               "requests", kRequestsMax));
    } else {
      return base::bad_input("behind the key may stand weight=W, requests=N and admin");
    }
  }
  return add_digest(*digest, caller);
}

base::Status AccessKeys::add_digest(const base::Sha256Bytes& digest, Caller caller) {
  const bool known =
      std::ranges::any_of(keys_, [&](const Key& key) { return key.digest == digest; });
  if (known) return base::bad_input("this key has been given before");
  keys_.push_back({digest, caller});
  return {};
}

uint32_t AccessKeys::tenant_named(std::string_view name) {
  for (size_t i = kAnonymous + 1; i < tenants_.size(); ++i) {
    if (tenants_[i].name == name) return static_cast<uint32_t>(i);
  }
  tenants_.push_back({.name = std::string(name)});
  return static_cast<uint32_t>(tenants_.size() - 1);
}

std::optional<Caller> AccessKeys::find(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer = authorization.size() > kScheme.size() &&
                      std::ranges::equal(authorization.substr(0, kScheme.size()), kScheme,
                                         [](char c, char lower) { return (c | 0x20) == lower; });
  if (!bearer) return std::nullopt;
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);

  const base::Sha256Bytes digest = digest_of(authorization);
  std::optional<Caller> caller;
  for (const Key& key : keys_) {
    if (CRYPTO_memcmp(key.digest.data(), digest.data(), digest.size()) == 0) caller = key.caller;
  }
  return caller;
}

}  // namespace kvasir::http
