// kvasir chat: a conversation whose keys and values stay in the cache from turn to turn.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "api/chat_history.h"
#include "apps/command.h"
#include "apps/sampling_flags.h"
#include "base/check.h"

namespace kvasir::apps {
namespace {

constexpr const char* kHelp =
    "/reset  forget the conversation\n"
    "/exit   leave (so does the end of input)\n"
    "/help   this list\n"
    "Ctrl-C  stops an answer; at the prompt it leaves\n";

struct ChatFlags {
  api::EngineFlags engine;
  std::optional<std::string> system;
  uint32_t max_tokens = 1024;
  SamplingFlags sampling;
};

// The next line of standard input, without its end. nullopt: there is none, or Ctrl-C.
std::optional<std::string> read_line(bool is_terminal) {
  if (is_terminal) fmt::print(stderr, "> ");
  char* buffer = nullptr;
  size_t capacity = 0;
  const ssize_t length = getline(&buffer, &capacity, stdin);
  std::optional<std::string> line;
  if (length >= 0) line.emplace(buffer, static_cast<size_t>(length));
  std::free(buffer);
  if (!line) {
    if (is_terminal) fmt::print(stderr, "\n");
    return std::nullopt;
  }
  while (!line->empty() && (line->back() == '\n' || line->back() == '\r')) line->pop_back();
  return line;
}

class Chat {
 public:
  Chat(api::Llm& llm, const ChatFlags& flags)
      : llm_(llm),
        history_(llm.tokenizer(), *llm.chat_template(), flags.system),
        request_{.sampling = flags.sampling.params, .stop = flags.sampling.stop},
        max_tokens_(flags.max_tokens) {}

  void reset() { history_.clear(); }
  base::Status turn(const std::string& message);

 private:
  void report(const api::Completion& completion) const;

  api::Llm& llm_;
  api::ChatHistory history_;
  api::GenerateRequest request_;
  uint32_t max_tokens_;
};

base::Status Chat::turn(const std::string& message) {
  ASSIGN_OR_RETURN(request_.prompt, history_.prompt_for(message));
  const uint32_t context = llm_.sequence_tokens_limit();
  if (request_.prompt.size() >= context) {
    fmt::print(stderr,
               "[the conversation would need {} tokens, but its context is {}; say less, or forget "
               "it with /reset]\n",
               request_.prompt.size() + 1, context);
    return {};
  }
  const auto room = context - static_cast<uint32_t>(request_.prompt.size());
  request_.max_tokens = std::min(max_tokens_, room);

  base::Status written;
  ProgressLine progress;
  const api::GenerateHooks hooks = streaming_hooks(progress, written);
  ASSIGN_OR_RETURN(const auto completions, llm_.generate(std::span(&request_, 1), hooks));
  progress.clear();
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(write_out("\n"));
  clear_interrupt();  // it has ended this answer, not the conversation
  const api::Completion& completion = completions[0];
  if (completion.reason == api::EndReason::kModelFailed) {
    return base::runtime_error("the model gave logits that are not numbers; check the file");
  }
  report(completion);
  history_.add_turn(message, std::move(request_.prompt), completion);
  return {};
}

void Chat::report(const api::Completion& completion) const {
  const engine::RequestStats& stats = completion.stats;
  const double seconds = static_cast<double>(stats.finished_us - stats.submitted_us) / 1e6;
  fmt::print(stderr, "[{}: {} prompt tokens, {} of them from the cache; {} generated; {:.2f} s]\n",
             api::end_reason_name(completion.reason), stats.prompt_tokens, stats.tokens_cached,
             stats.tokens_generated, seconds);
  const uint32_t used = stats.prompt_tokens + stats.tokens_generated;
  if (completion.reason == api::EndReason::kLength && used == llm_.sequence_tokens_limit()) {
    fmt::print(stderr, "[the context of {} tokens is full; forget it with /reset]\n", used);
  }
}

base::Status converse(Chat& chat) {
  const bool is_terminal = isatty(STDIN_FILENO) == 1;
  if (is_terminal) fmt::print(stderr, "{}", kHelp);
  while (!interrupted()) {  // true here: the process is asked to end
    const std::optional<std::string> line = read_line(is_terminal);
    if (!line) break;
    if (line->find_first_not_of(" \t") == std::string::npos) continue;
    if (*line == "/exit") break;
    if (*line == "/help") {
      fmt::print(stderr, "{}", kHelp);
    } else if (*line == "/reset") {
      chat.reset();
      fmt::print(stderr, "[forgotten]\n");
    } else if (line->front() == '/' && line->find(' ') == std::string::npos) {
      fmt::print(stderr, "[{}: no such command; /help lists them]\n", *line);
    } else {
      RETURN_IF_ERROR(chat.turn(*line));
    }
  }
  return {};
}

CommandResult chat(ChatFlags flags) {
  ASSIGN_OR_RETURN(const api::EngineOptions options, api::parse_options(flags.engine));
  ASSIGN_OR_RETURN(flags.sampling.params, parse_sampling(flags.sampling));
  if (flags.max_tokens == 0) return base::bad_input("--max-tokens 0: use at least 1");
  ASSIGN_OR_RETURN(const std::unique_ptr<api::Llm> llm, load_llm(options));
  if (llm->chat_template() == nullptr) {
    return base::bad_input(fmt::format("{}: has no chat template; use a chat model, or kvasir run",
                                       flags.engine.model));
  }
  Chat conversation(*llm, flags);
  RETURN_IF_ERROR(converse(conversation));
  return kOk;
}

}  // namespace

void add_chat(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("chat", "Converse; one line of input is one message");
  const auto flags = std::make_shared<ChatFlags>();
  command->add_option("--system", flags->system, "what the model is told first");
  command->add_option("-n,--max-tokens", flags->max_tokens, "tokens of an answer at most")
      ->capture_default_str();
  add_sampling_flags(*command, flags->sampling);
  add_engine_flags(*command, flags->engine);
  command->callback([&action, flags] { action = [flags] { return chat(*flags); }; });
}

}  // namespace kvasir::apps
