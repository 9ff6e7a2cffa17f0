// The Rust library's C interface in C++ terms: owners, errors and string views. For text/*.cc only.
//
// Thread: any. Allocates: take() and ffi_error().
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "kvasir_ffi.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir::text {

inline KvasirText to_ffi(std::string_view text) {
  return {text.data(), text.size()};
}

// These copy what Rust returned and give it back.
std::string take(KvasirString string);
std::vector<TokenId> take(KvasirIds ids);
std::unexpected<base::Error> ffi_error(KvasirCode code, KvasirString message);

struct FreeTokenizer {
  void operator()(KvasirTokenizer* tokenizer) const { kvasir_tokenizer_free(tokenizer); }
};
struct FreeTemplate {
  void operator()(KvasirTemplate* chat_template) const { kvasir_template_free(chat_template); }
};

struct Tokenizer::Handle : std::unique_ptr<KvasirTokenizer, FreeTokenizer> {
  using unique_ptr::unique_ptr;
};
struct ChatTemplate::Handle : std::unique_ptr<KvasirTemplate, FreeTemplate> {
  using unique_ptr::unique_ptr;
};

}  // namespace kvasir::text
