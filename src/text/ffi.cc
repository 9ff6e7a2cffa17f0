#include "text/ffi.h"

namespace kvasir::text {

std::string take(KvasirString string) {
  std::string copy(string.data == nullptr ? "" : string.data, string.size);
  kvasir_string_free(string);
  return copy;
}

std::vector<TokenId> take(KvasirIds ids) {
  std::vector<TokenId> copy(ids.data, ids.data + ids.size);
  kvasir_ids_free(ids);
  return copy;
}

std::unexpected<base::Error> ffi_error(KvasirCode code, KvasirString message) {
  std::string text = take(message);
  return code == KVASIR_BAD_INPUT ? base::bad_input(std::move(text))
                                  : base::runtime_error(std::move(text));
}

}  // namespace kvasir::text
