// The kvasir binary: finds the command, runs it, and turns its Error into one line and an exit
// code. 0 ok, 1 runtime failure, 2 bad usage or bad input.
#include <fmt/format.h>

#include <new>

#include "apps/command.h"

namespace kvasir::apps {
namespace {

// One line, whatever stood in a file name or message.
std::string one_line(std::string text) {
  for (char& c : text) {
    if (c == '\n' || c == '\r') c = ' ';
  }
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

int fail(const std::string& message, ExitCode code) {
  fmt::print(stderr, "kvasir: {}\n", one_line(message));
  return code;
}

CommandResult run_action(const Action& action) {
  try {
    return action();
  } catch (const std::bad_alloc&) {
    return base::runtime_error("out of memory; ask for less or free some");
  }
}

int run_command(int argc, char** argv) {
  CLI::App cli("Kvasir: an LLM inference engine whose heart is its KV cache.", "kvasir");
  cli.set_version_flag("--version", "kvasir " KVASIR_VERSION);
  cli.require_subcommand(1);
  Action action;
  add_run(cli, action);
  add_chat(cli, action);
  add_eval(cli, action);
  add_tokenize(cli, action);
  add_calc(cli, action);
  add_inspect(cli, action);
  add_serve(cli, action);
  add_bench(cli, action);
  try {
    cli.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return cli.exit(success);
  } catch (const CLI::ParseError& error) {
    if (cli.get_subcommands().empty() && cli.remaining_size() > 0) {
      return fail(fmt::format("{}: no such command; see kvasir --help", cli.remaining().front()),
                  kBadUsage);
    }
    return fail(fmt::format("{}; see kvasir --help", error.what()), kBadUsage);
  }
  watch_for_interrupt();
  const CommandResult result = run_action(action);
  if (result.has_value()) return *result;
  const bool bad_input = result.error().kind == base::ErrorKind::kBadInput;
  return fail(result.error().message, bad_input ? kBadUsage : kRuntimeFailure);
}

}  // namespace
}  // namespace kvasir::apps

int main(int argc, char** argv) {
  return kvasir::apps::run_command(argc, argv);
}
