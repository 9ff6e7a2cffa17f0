// A conversation: as the chat template sees it (messages) and as the cache does (tokens). Its
// prompts continue the cached tokens wherever the template renders the same text again.
//
// Thread: one owner. Allocates: every call.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "api/llm.h"
#include "base/result.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace kvasir::api {

class ChatHistory {
 public:
  // Both must outlive the history. `system`: the first message, which clear() keeps.
  ChatHistory(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat_template,
              const std::optional<std::string>& system);

  // The prompt that asks for an answer to `message`; nothing is remembered.
  // Error: see ChatTemplate::render.
  base::Result<std::vector<TokenId>> prompt_for(const std::string& message) const;

  // Remembers a turn: the message, its prompt and what was answered, complete or not.
  void add_turn(const std::string& message, std::vector<TokenId> prompt,
                const Completion& completion);
  void clear();

 private:
  const text::Tokenizer& tokenizer_;
  const text::ChatTemplate& chat_template_;
  std::vector<text::ChatMessage> messages_;
  size_t system_messages_ = 0;   // 0 or 1
  std::vector<TokenId> tokens_;  // of the newest turn: prompt and answer
};

// `rendered`, with its beginning spelled in the tokens of `cached` as far as both stand for the
// same text. A model does not always write the tokens that a tokenizer would choose for its text;
// the next turn shall continue what it wrote. Tokens without bytes equal only themselves.
std::vector<TokenId> continue_tokens(std::span<const TokenId> cached,
                                     std::span<const TokenId> rendered,
                                     const std::function<std::string_view(TokenId)>& bytes_of);

}  // namespace kvasir::api
