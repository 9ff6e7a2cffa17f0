// The description of the HTTP interface, from which clients and tests are made: OpenAPI 3.1.
//
// A schema of a request says what a field may be: what it forbids is refused. It can not say that
// fields fit each other, the context, or what this model can do, so what it allows may still be
// refused with 400.
//
// Thread: any; a pure function. Allocates: freely.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace kvasir::serve {

struct ApiDescription {
  std::string version;      // of the server
  std::string model_id;     // the only one that requests may name
  bool needs_key = false;   // requests carry a key
  size_t vocab_size = 0;    // token ids are below it
  uint32_t tokens_max = 0;  // of prompt and answer
  size_t prompts_max = 0;   // of one request
  size_t messages_max = 0;  // of one conversation
};

std::string openapi_document(const ApiDescription& api);

}  // namespace kvasir::serve
