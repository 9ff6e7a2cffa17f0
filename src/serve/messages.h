// A conversation from a request's body to the prompt that the model's template makes of it.
// Thread: any. Allocates: every call.
#pragma once

#include <vector>

#include "serve/model_info.h"

namespace kvasir::serve {

// "messages". Roles: system, developer (the same), user, assistant; contents are strings or lists
// of {"type": "text"}. Error: 400 that names the part; what is not text is unsupported.
ApiResult<std::vector<text::ChatMessage>> read_messages(const ModelInfo& model,
                                                        const boost::json::object& body);

// Error: 400, the model has no template or the template refuses the conversation; 500, it failed.
ApiResult<text::RenderedChat> render_chat(const ModelInfo& model,
                                          const std::vector<text::ChatMessage>& messages,
                                          bool add_generation_prompt);

}  // namespace kvasir::serve
