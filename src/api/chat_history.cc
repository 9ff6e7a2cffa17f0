#include "api/chat_history.h"

#include <algorithm>
#include <utility>

namespace kvasir::api {
namespace {

using BytesOf = std::function<std::string_view(TokenId)>;

// How many tokens at the front of each list stand for the same text, the fewest possible.
// nullopt: their texts differ, or one of them ends first.
struct Front {
  size_t cached = 0;
  size_t rendered = 0;
};
std::optional<Front> same_text_front(std::span<const TokenId> cached,
                                     std::span<const TokenId> rendered, const BytesOf& bytes_of) {
  if (cached.empty() || rendered.empty()) return std::nullopt;
  if (cached[0] == rendered[0]) return Front{1, 1};
  Front front;
  std::string cached_text;
  std::string rendered_text;
  do {
    const bool cached_is_behind = cached_text.size() <= rendered_text.size();
    const std::span<const TokenId> list = cached_is_behind ? cached : rendered;
    size_t& at = cached_is_behind ? front.cached : front.rendered;
    if (at == list.size()) return std::nullopt;
    const std::string_view bytes = bytes_of(list[at]);
    if (bytes.empty()) return std::nullopt;
    ++at;
    (cached_is_behind ? cached_text : rendered_text) += bytes;
    const size_t common = std::min(cached_text.size(), rendered_text.size());
    if (cached_text.compare(0, common, rendered_text, 0, common) != 0) return std::nullopt;
  } while (cached_text.size() != rendered_text.size());
  return front;
}

}  // namespace

ChatHistory::ChatHistory(const text::Tokenizer& tokenizer, const text::ChatTemplate& chat_template,
                         const std::optional<std::string>& system)
    : tokenizer_(tokenizer), chat_template_(chat_template) {
  if (system) messages_.push_back({.role = "system", .content = *system});
  system_messages_ = messages_.size();
}

base::Result<std::vector<TokenId>> ChatHistory::prompt_for(const std::string& message) const {
  std::vector<text::ChatMessage> messages = messages_;
  messages.push_back({.role = "user", .content = message});
  ASSIGN_OR_RETURN(const text::RenderedChat chat,
                   chat_template_.render(messages, /*add_generation_prompt=*/true, tokenizer_));
  return continue_tokens(tokens_, chat.ids,
                         [&](TokenId token) { return tokenizer_.token_bytes(token); });
}

void ChatHistory::add_turn(const std::string& message, std::vector<TokenId> prompt,
                           const Completion& completion) {
  messages_.push_back({.role = "user", .content = message});
  messages_.push_back({.role = "assistant", .content = completion.text});
  tokens_ = std::move(prompt);
  tokens_.insert(tokens_.end(), completion.tokens.begin(), completion.tokens.end());
}

void ChatHistory::clear() {
  messages_.resize(system_messages_);
  tokens_.clear();
}

std::vector<TokenId> continue_tokens(std::span<const TokenId> cached,
                                     std::span<const TokenId> rendered, const BytesOf& bytes_of) {
  Front equal;
  while (const auto front = same_text_front(cached.subspan(equal.cached),
                                            rendered.subspan(equal.rendered), bytes_of)) {
    equal.cached += front->cached;
    equal.rendered += front->rendered;
  }
  const auto begin = cached.begin();
  std::vector<TokenId> tokens(begin, begin + static_cast<std::ptrdiff_t>(equal.cached));
  const std::span<const TokenId> rest = rendered.subspan(equal.rendered);
  tokens.insert(tokens.end(), rest.begin(), rest.end());
  return tokens;
}

}  // namespace kvasir::api
