// kvasir tokenize, detokenize, template: what the model's text side does, without its weights.
#include <fmt/format.h>

#include "api/text_tools.h"
#include "apps/command.h"

namespace kvasir::apps {
namespace {

struct TextFlags {
  std::string model = api::kDefaultModelPath;
  std::string text;
  std::string file;
  std::string tokens;
  bool special = false;
  bool no_generation_prompt = false;
  bool json = false;
};

CommandResult tokenize(const TextFlags& flags) {
  std::string text = flags.text;
  if (!flags.file.empty()) {
    ASSIGN_OR_RETURN(text, read_text(flags.file));
  }
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, api::open_tokenizer(flags.model));
  const auto special = flags.special ? text::SpecialText::kParse : text::SpecialText::kPlain;
  ASSIGN_OR_RETURN(const std::vector<TokenId> ids, tokenizer.encode(text, special));
  if (flags.json) {
    RETURN_IF_ERROR(write_json_line({{"ids", boost::json::value_from(ids)}}));
  } else {
    RETURN_IF_ERROR(write_out(fmt::format("{}\n", fmt::join(ids, " "))));
  }
  return kOk;
}

CommandResult detokenize(const TextFlags& flags) {
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, parse_token_list(flags.tokens));
  ASSIGN_OR_RETURN(const text::Tokenizer tokenizer, api::open_tokenizer(flags.model));
  ASSIGN_OR_RETURN(const std::string text, api::detokenize_checked(tokenizer, tokens));
  if (flags.json) {
    RETURN_IF_ERROR(write_json_line({{"text", text}}));
  } else {
    RETURN_IF_ERROR(write_out(text + "\n"));
  }
  return kOk;
}

// A list of {"role", "content"}, or an object that holds it under "messages".
base::Result<std::vector<text::ChatMessage>> parse_messages(const std::string& path,
                                                            const std::string& text) {
  boost::json::error_code error;
  const boost::json::value root = boost::json::parse(text, error);
  if (error) return base::bad_input(fmt::format("{}: not JSON: {}", path, error.message()));
  const boost::json::value* list =
      root.is_object() ? root.get_object().if_contains("messages") : &root;
  if (list == nullptr || !list->is_array()) {
    return base::bad_input(fmt::format(
        "{}: give a list of {{\"role\", \"content\"}}, or it under \"messages\"", path));
  }
  std::vector<text::ChatMessage> messages;
  for (const boost::json::value& entry : list->get_array()) {
    const boost::json::object* message = entry.if_object();
    const auto string_at = [&](const char* key) -> const boost::json::string* {
      const boost::json::value* field = message == nullptr ? nullptr : message->if_contains(key);
      return field == nullptr ? nullptr : field->if_string();
    };
    const boost::json::string* role = string_at("role");
    const boost::json::string* content = string_at("content");
    if (role == nullptr || content == nullptr) {
      return base::bad_input(fmt::format(
          "{}: message {} needs \"role\" and \"content\", both strings", path, messages.size()));
    }
    messages.push_back({std::string(*role), std::string(*content)});
  }
  return messages;
}

CommandResult render_template(const TextFlags& flags) {
  ASSIGN_OR_RETURN(const std::string text, read_text(flags.file));
  ASSIGN_OR_RETURN(const auto messages, parse_messages(flags.file, text));
  ASSIGN_OR_RETURN(const api::ChatTools tools, api::open_chat_tools(flags.model));
  ASSIGN_OR_RETURN(
      const text::RenderedChat chat,
      tools.chat_template.render(messages, !flags.no_generation_prompt, tools.tokenizer));
  if (flags.json) {
    RETURN_IF_ERROR(
        write_json_line({{"text", chat.text}, {"ids", boost::json::value_from(chat.ids)}}));
  } else {
    RETURN_IF_ERROR(write_out(fmt::format("{}\n{}\n", chat.text, fmt::join(chat.ids, " "))));
  }
  return kOk;
}

// What the three commands share.
CLI::App* add_command(CLI::App& cli, const char* name, const char* description, TextFlags& flags) {
  CLI::App* command = cli.add_subcommand(name, description);
  command->add_option("-m,--model", flags.model, "GGUF file")->capture_default_str();
  command->add_flag("--json", flags.json, "one JSON object");
  return command;
}

}  // namespace

void add_tokenize(CLI::App& cli, Action& action) {
  const auto flags = std::make_shared<TextFlags>();
  CLI::App* ids = add_command(cli, "tokenize", "Text to token ids; nothing is added", *flags);
  CLI::Option_group* source = ids->add_option_group("text", "exactly one of");
  source->add_option("-p,--prompt", flags->text, "the text");
  source->add_option("-f,--file", flags->file, "a file with the text; - is stdin");
  source->require_option(1);
  ids->add_flag("--special", flags->special,
                "text of a control token, such as <|im_end|>, becomes that token");
  ids->callback([&action, flags] { action = [flags] { return tokenize(*flags); }; });

  CLI::App* text = add_command(cli, "detokenize", "Token ids to text", *flags);
  text->add_option("--tokens", flags->tokens, "token ids: 1,2,3")->required();
  text->callback([&action, flags] { action = [flags] { return detokenize(*flags); }; });

  CLI::App* chat = add_command(cli, "template",
                               "Messages to the text and ids of the model's chat "
                               "template",
                               *flags);
  chat->add_option("-f,--file", flags->file, "JSON: a list of {\"role\", \"content\"}; - is stdin")
      ->required();
  chat->add_flag("--no-generation-prompt", flags->no_generation_prompt,
                 "do not open the assistant's answer at the end");
  chat->callback([&action, flags] { action = [flags] { return render_template(*flags); }; });
}

}  // namespace kvasir::apps
