#include "text/chat_template.h"

#include "base/check.h"
#include "text/ffi.h"

namespace kvasir::text {
namespace {

KvasirText token_text(const Vocab& vocab, std::optional<TokenId> id) {
  if (!id || *id < 0 || static_cast<size_t>(*id) >= vocab.tokens.size()) return {};
  return to_ffi(vocab.tokens[static_cast<size_t>(*id)]);
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<Handle> handle) : handle_(std::move(handle)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

base::Result<ChatTemplate> ChatTemplate::create(std::string_view source, const Vocab& vocab) {
  KvasirTemplate* raw = nullptr;
  KvasirString error = {};
  const KvasirCode code = kvasir_template_create(to_ffi(source), token_text(vocab, vocab.bos),
                                                 token_text(vocab, vocab.eos), &raw, &error);
  if (code != KVASIR_OK) return ffi_error(code, error);
  return ChatTemplate(std::make_unique<Handle>(raw));
}

base::Result<RenderedChat> ChatTemplate::render(const std::vector<ChatMessage>& messages,
                                                bool add_generation_prompt,
                                                const Tokenizer& tokenizer) const {
  CHECK(handle_ != nullptr);
  CHECK(tokenizer.handle_ != nullptr);
  std::vector<KvasirMessage> borrowed;
  borrowed.reserve(messages.size());
  for (const ChatMessage& message : messages) {
    borrowed.push_back({to_ffi(message.role), to_ffi(message.content)});
  }
  const KvasirChat chat = {borrowed.data(), borrowed.size(), add_generation_prompt};
  KvasirRendered rendered = {};
  KvasirString error = {};
  const KvasirCode code =
      kvasir_template_render(handle_->get(), tokenizer.handle_->get(), &chat, &rendered, &error);
  if (code != KVASIR_OK) return ffi_error(code, error);
  return RenderedChat{take(rendered.text), take(rendered.ids)};
}

}  // namespace kvasir::text
