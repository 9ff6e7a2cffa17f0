// The endpoints that need no engine: tokens of texts, texts of tokens, prompts of conversations,
// and what model there is.
// Thread: any. Allocates: every call.
#pragma once

#include "serve/model_info.h"

namespace kvasir::serve {

// POST /tokenize: {"content", "add_special", "parse_special", "with_pieces"} as llama.cpp has it,
// or
// {"prompt" or "messages", "add_special_tokens", "return_token_strs"} as vLLM does. In llama.cpp's
// form control tokens may be written as text: nothing is computed from it.
http::Response tokenize_response(const ModelInfo& model, const http::Request& request);

// POST /detokenize: {"tokens"}; the text stands under both servers' names.
http::Response detokenize_response(const ModelInfo& model, const http::Request& request);

// POST /v1/chat/completions/render: the prompt that a chat request has, as tokens and text.
http::Response render_response(const ModelInfo& model, const http::Request& request);

// GET /tokenizer_info: what clients that let the server tokenize ask first.
boost::json::object tokenizer_json(const ModelInfo& model);

// GET /v1/models.
boost::json::object models_json(const ModelInfo& model);

}  // namespace kvasir::serve
