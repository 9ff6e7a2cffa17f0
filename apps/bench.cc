// kvasir bench NAME: runs one workload; JSON lines or a table of the same figures.
#include <fmt/format.h>

#include "apps/command.h"
#include "bench/workloads.h"

namespace kvasir::apps {
namespace {

struct BenchFlags {
  api::EngineFlags engine;
  bench::BenchOptions options;
  bool json = false;
};

// "tok_s 812.3 (800.1 - 820.9)" and the like, for people.
std::string readable(const boost::json::object& line) {
  std::string text = fmt::format("{} {:<16}", std::string(line.at("bench").as_string()),
                                 std::string(line.at("case").as_string()));
  if (const auto* rate = line.if_contains("tok_s")) {
    text += fmt::format(" {:10.1f} tok/s  ({:.1f} - {:.1f})", rate->as_double(),
                        line.at("tok_s_min").as_double(), line.at("tok_s_max").as_double());
  }
  if (const auto* pairs = line.if_contains("pairs_computed")) {
    text += fmt::format(" {:8} pairs  {:8.3f} s  {:12} KV bytes", pairs->to_number<uint64_t>(),
                        line.at("decode_s").as_double(),
                        line.at("kv_bytes_peak").to_number<uint64_t>());
  }
  return text + "\n";
}

CommandResult run(const bench::Workload& workload, BenchFlags flags) {
  ASSIGN_OR_RETURN(flags.options.engine, api::parse_options(flags.engine));
  ProgressLine progress;
  base::Status written;
  const base::Status status = workload.run(
      flags.options, {.on_line =
                          [&](const boost::json::object& line) {
                            progress.clear();
                            written =
                                flags.json ? write_json_line(line) : write_out(readable(line));
                          },
                      .on_progress = [&](std::string_view text) { progress.show(text); },
                      .cancelled = [&] { return interrupted() || !written; }});
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(status);
  return kOk;
}

void add_workload(CLI::App& parent, const bench::Workload& workload, Action& action) {
  CLI::App* command = parent.add_subcommand(std::string(workload.name), std::string(workload.help));
  const auto flags = std::make_shared<BenchFlags>();
  bench::BenchOptions& options = flags->options;
  command->add_option("--tokens", options.tokens, "prompt tokens");
  command->add_option("--depth", options.depth, "tokens in the cache beforehand");
  command->add_option("--generate", options.generate, "tokens to generate");
  command->add_option("--sequences", options.sequences, "sequences at once");
  command->add_option("--repeat", options.repeat, "measured repetitions");
  command->add_flag("--json", flags->json, "JSON lines instead of a table");
  add_engine_flags(*command, flags->engine);
  command->callback(
      [&action, flags, workload] { action = [flags, workload] { return run(workload, *flags); }; });
}

}  // namespace

void add_bench(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("bench", "Measure this machine and this model");
  command->require_subcommand(1);
  for (const bench::Workload& workload : bench::workloads()) {
    add_workload(*command, workload, action);
  }
}

}  // namespace kvasir::apps
