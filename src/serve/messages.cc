#include "serve/messages.h"

#include <fmt/format.h>

#include <utility>

#include "serve/unsupported.h"

namespace kvasir::serve {
namespace {

namespace json = boost::json;

// Templates know no "developer": it is OpenAI's newer name of "system".
ApiResult<std::string> read_role(const json::object& message, const std::string& place) {
  const std::string param = place + ".role";
  ASSIGN_OR_RETURN(std::string role, read_required_string(message, "role", param));
  if (role == "developer") return "system";
  if (role == "system" || role == "user" || role == "assistant") return role;
  if (role == "tool" || role == "function") return unsupported(param, "calls of tools");
  return invalid(param, fmt::format("'{}' must be system, developer, user or assistant.", param));
}

ApiResult<std::string> read_part(const json::value& value, const std::string& place) {
  const json::object* part = value.if_object();
  if (part == nullptr) return invalid(place, fmt::format("'{}' must be an object.", place));
  const std::string type_param = place + ".type";
  ASSIGN_OR_RETURN(const std::string type, read_required_string(*part, "type", type_param));
  if (type != "text") return unsupported(type_param, "input but text");
  return read_required_string(*part, "text", place + ".text");
}

ApiResult<std::string> read_content(const json::object& message, const std::string& place) {
  const std::string param = place + ".content";
  const json::value* value = find(message, "content");
  if (value == nullptr) return invalid(param, fmt::format("'{}' is missing.", param));
  const json::array* parts = value->if_array();
  if (parts == nullptr) {
    if (value->is_string()) return std::string(value->get_string());
    return invalid(param, fmt::format("'{}' must be a string or a list of parts.", param));
  }
  if (parts->empty()) return invalid(param, fmt::format("'{}' has no parts.", param));
  std::string content;
  for (size_t i = 0; i < parts->size(); ++i) {
    ASSIGN_OR_RETURN(const std::string part,
                     read_part((*parts)[i], fmt::format("{}[{}]", param, i)));
    if (i > 0) content += '\n';
    content += part;
  }
  return content;
}

ApiResult<text::ChatMessage> read_message(const json::value& value, const std::string& place) {
  const json::object* message = value.if_object();
  if (message == nullptr) return invalid(place, fmt::format("'{}' must be an object.", place));
  ASSIGN_OR_RETURN(std::string role, read_role(*message, place));
  for (const char* name : {"tool_calls", "function_call", "audio"}) {
    const json::value* extra = find(*message, name);
    if (extra == nullptr || (extra->is_array() && extra->get_array().empty())) continue;
    return unsupported(fmt::format("{}.{}", place, name), "messages of this kind");
  }
  ASSIGN_OR_RETURN(std::string content, read_content(*message, place));
  return text::ChatMessage{.role = std::move(role), .content = std::move(content)};
}

}  // namespace

ApiResult<std::vector<text::ChatMessage>> read_messages(const ModelInfo& model,
                                                        const json::object& body) {
  const json::value* value = find(body, "messages");
  if (value == nullptr) return invalid("messages", "'messages' is missing.");
  const json::array* list = value->if_array();
  if (list == nullptr || list->empty() || list->size() > model.messages_max) {
    return invalid("messages", fmt::format("'messages' must be a list of 1 to {} messages.",
                                           model.messages_max));
  }
  std::vector<text::ChatMessage> messages;
  messages.reserve(list->size());
  for (const json::value& entry : *list) {
    ASSIGN_OR_RETURN(text::ChatMessage message,
                     read_message(entry, fmt::format("messages[{}]", messages.size())));
    messages.push_back(std::move(message));
  }
  return messages;
}

ApiResult<text::RenderedChat> render_chat(const ModelInfo& model,
                                          const std::vector<text::ChatMessage>& messages,
                                          bool add_generation_prompt) {
  if (model.chat_template == nullptr) {
    return std::unexpected(ApiError{
        .message = "The model has no chat template; use /v1/completions.", .code = "no_template"});
  }
  size_t text_bytes = 0;
  for (const text::ChatMessage& message : messages) text_bytes += message.content.size();
  RETURN_IF_ERROR(check_text_size(model, text_bytes, "messages"));
  auto chat = model.chat_template->render(messages, add_generation_prompt, *model.tokenizer);
  if (chat) return *std::move(chat);
  const bool is_refusal = chat.error().kind == base::ErrorKind::kBadInput;
  return std::unexpected(ApiError{.status = is_refusal ? 400U : 500U,
                                  .message = std::move(chat.error().message),
                                  .param = "messages"});
}

}  // namespace kvasir::serve
