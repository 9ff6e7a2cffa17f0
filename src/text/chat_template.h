// Conversations to token ids through the model's own Jinja template.
//
// Thread: immutable after create(). Allocates: every call.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/ids.h"
#include "base/result.h"
#include "text/tokenizer.h"

namespace kvasir::text {

struct ChatMessage {
  std::string role;
  std::string content;
};

struct RenderedChat {
  std::string text;
  std::vector<TokenId> ids;  // control tokens only where the template itself wrote them
};

class ChatTemplate {
 public:
  // Error: the template does not compile.
  static base::Result<ChatTemplate> create(std::string_view source, const Vocab& vocab);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // `add_generation_prompt`: end with the opening of the assistant's answer. Error: the template
  // raised an exception (its message is passed on) or ran out of its budget of steps.
  base::Result<RenderedChat> render(const std::vector<ChatMessage>& messages,
                                    bool add_generation_prompt, const Tokenizer& tokenizer) const;

 private:
  struct Handle;  // the Rust object
  explicit ChatTemplate(std::unique_ptr<Handle> handle);
  std::unique_ptr<Handle> handle_;
};

}  // namespace kvasir::text
