// What every command of the binary shares. A command adds itself to the CLI, and is called after
// parsing; it returns the process's exit code or an Error, which main() prints on one line.
#pragma once

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/llm.h"
#include "base/result.h"

namespace kvasir::apps {

enum ExitCode : int { kOk = 0, kRuntimeFailure = 1, kBadUsage = 2 };

using CommandResult = base::Result<ExitCode>;

// The chosen command; set by the callback of whichever subcommand was given.
using Action = std::function<CommandResult()>;

void add_run(CLI::App& cli, Action& action);
void add_chat(CLI::App& cli, Action& action);
void add_eval(CLI::App& cli, Action& action);
void add_tokenize(CLI::App& cli, Action& action);  // tokenize, detokenize, template
void add_calc(CLI::App& cli, Action& action);
void add_inspect(CLI::App& cli, Action& action);
void add_serve(CLI::App& cli, Action& action);
void add_bench(CLI::App& cli, Action& action);

// --model, --kv, --threads ...: the engine options of DESIGN's command line.
void add_engine_flags(CLI::App& command, api::EngineFlags& flags);

// Loads the model with a progress line on a terminal.
base::Result<std::unique_ptr<api::Llm>> load_llm(const api::EngineOptions& options);

// The whole of a file; "-" is standard input. Error: unreadable, or more than 64 MiB.
base::Result<std::string> read_text(const std::string& path);

// "1,2,3" -> ids. Error: anything but numbers, commas and spaces.
base::Result<std::vector<TokenId>> parse_token_list(const std::string& text);

// A prompt's tokens: `chat` puts it into the model's chat template as the user's message; else it
// stands bare, after BOS where the model asks for one.
base::Result<std::vector<TokenId>> encode_prompt(const api::Llm& llm, const std::string& text,
                                                 bool chat);

// Where a command takes its text from: the first that is set, then `text`.
struct PromptFlags {
  std::string text;
  std::optional<std::string> file;
  std::optional<std::string> tokens;
};
// -p, -f and --tokens; `noun` names the text in the help: "prompt".
void add_prompt_flags(CLI::Option_group& group, PromptFlags& flags, const std::string& noun);
// Error: as read_text, parse_token_list and encode_prompt.
base::Result<std::vector<TokenId>> read_prompt(const api::Llm& llm, const PromptFlags& flags,
                                               bool chat);

// Writes a result to standard output. Error: it can not be written (a full disk, a closed pipe).
base::Status write_out(std::string_view text);
base::Status write_json_line(const boost::json::value& value);

// True once Ctrl-C was pressed; the first press asks the running command to end by itself, the
// second ends the process. Installs the handler on first use.
bool interrupted();
// The command has obeyed and goes on: the next press counts as the first.
void clear_interrupt();
void watch_for_interrupt();

// A line on a terminal's stderr that rewrites itself; silent elsewhere.
class ProgressLine {
 public:
  ProgressLine();
  ~ProgressLine() { clear(); }
  void show(std::string_view text);
  void clear();  // before anything else is written to the terminal

 private:
  bool is_terminal_;
  bool shown_ = false;
};

// Text to standard output as it comes, prompt progress on the line, an end when Ctrl-C is pressed
// or `written` holds an error. The references must outlive the hooks.
api::GenerateHooks streaming_hooks(ProgressLine& progress, base::Status& written);

}  // namespace kvasir::apps
