// Who may use the server: keys, and the tenants they belong to. Keys are kept as digests only.
//
// A key file has one key per line; '#' begins a comment:
//   NAME KEY [weight=W] [requests=N] [admin]
// KEY is the key itself, or "sha256:" and the 64 hexadecimal digits of its SHA-256. Lines with the
// same NAME are keys of one tenant; `weight` and `requests` belong to the tenant, `admin` to the
// key.
//
// Thread: filled by one owner, then any. Allocates: while it is filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "base/result.h"
#include "http/exchange.h"

namespace kvasir::http {

struct Tenant {
  std::string name;
  std::optional<uint32_t> weight_given;
  std::optional<uint32_t> requests_max;  // at a time; nullopt: no limit of its own

  // Its share, compared with those of others.
  uint32_t weight() const { return weight_given.value_or(1); }
};

class AccessKeys {
 public:
  // Adds a key given on the command line, of the tenant "default". Error: never repeats the key.
  base::Status add(std::string_view key, bool admin);
  // Adds the keys of a file. Error: names the file and the line, never the key.
  base::Status read_file(const std::string& path);

  // No keys: nobody needs one.
  bool empty() const { return keys_.empty(); }
  // By Caller::tenant. The first is nobody in particular: all callers, where there are no keys.
  const std::vector<Tenant>& tenants() const { return tenants_; }
  // Who sends this Authorization field; nullopt: nobody known. Takes equally long for every key.
  std::optional<Caller> find(std::string_view authorization) const;

 private:
  struct Key {
    base::Sha256Bytes digest{};
    Caller caller;
  };

  base::Status read_line(std::string_view line);
  base::Status add_digest(const base::Sha256Bytes& digest, Caller caller);
  uint32_t tenant_named(std::string_view name);

  std::vector<Key> keys_;
  std::vector<Tenant> tenants_ = {{.name = "anonymous"}};
};

}  // namespace kvasir::http
