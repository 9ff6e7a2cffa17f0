// From validated parameters and prompts to requests for the engine.
// Thread: any. Allocates: every call.
#pragma once

#include <string_view>
#include <vector>

#include "http/exchange.h"
#include "serve/model_info.h"
#include "serve/parameters.h"

namespace kvasir::serve {

// Where a request comes from.
struct Origin {
  const ModelInfo& model;
  const http::Caller& caller;
  Dialect dialect;
  std::string_view prompt_param;  // the field that holds the prompts, for errors
};

// One request per prompt. Error: 400, a prompt is empty or too long for the context.
ApiResult<std::vector<api::GenerateRequest>> make_requests(
    const Parameters& parameters, std::vector<std::vector<TokenId>> prompts, const Origin& origin);

// Whose cached prefixes a caller may share: the tenant's own, of those only the ones with the same
// salt. Empty salt: none.
kv::CacheDomain cache_domain(const http::Caller& caller, std::string_view salt);

}  // namespace kvasir::serve
