// What a server shows to clients that speak TLS: its certificate chain and the key to it. It takes
// TLS 1.2 and 1.3, with ciphers that keep old recordings secret when the key is lost.
//
// Thread: any; nothing changes once it is loaded. Allocates: load() only.
#pragma once

#include <openssl/types.h>

#include <memory>
#include <string>

#include "base/result.h"

namespace kvasir::http {

class TlsContext {
 public:
  // Reads two files in PEM: the server's certificate followed by those of its issuers, and the
  // certificate's key. Error: names the file and what is wrong with it.
  static base::Result<std::shared_ptr<const TlsContext>> load(const std::string& certificate_path,
                                                              const std::string& key_path);

  // For sessions to be made from.
  SSL_CTX* native() const { return context_.get(); }

 private:
  struct Free {
    void operator()(SSL_CTX* context) const;
  };
  using Context = std::unique_ptr<SSL_CTX, Free>;

  explicit TlsContext(Context context);

  const Context context_;
};

}  // namespace kvasir::http
