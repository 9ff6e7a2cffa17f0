// kvasir bench NAME: runs one workload; JSON lines or a table of the same figures.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "apps/command.h"
#include "bench/workloads.h"

namespace kvasir::apps {
namespace {

struct BenchFlags {
  api::EngineFlags engine;
  bench::BenchOptions options;
  bool json = false;
};

// What every line of a run repeats.
bool is_head(std::string_view key) {
  constexpr std::string_view kHead[] = {"bench",      "case",      "model",        "cpu",
                                        "cpu_family", "cpu_model", "isa",          "threads",
                                        "kv",         "kv_dtype",  "block_tokens", "memory"};
  return std::ranges::find(kHead, key) != std::end(kHead);
}

std::string readable(const boost::json::value& value) {
  if (value.is_double()) return fmt::format("{:.4g}", value.as_double());
  if (value.is_string()) return std::string(value.as_string());
  return boost::json::serialize(value);
}

// "prefill 512@0  tokens 512  tok_s 812.3 ...", for people.
std::string readable_line(const boost::json::object& line) {
  std::string text = fmt::format("{} {:<16}", std::string(line.at("bench").as_string()),
                                 std::string(line.at("case").as_string()));
  for (const auto& [key, value] : line) {
    if (!is_head(key)) text += fmt::format("  {} {}", std::string(key), readable(value));
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
                                flags.json ? write_json_line(line) : write_out(readable_line(line));
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
  command->add_option("--rate", options.rate, "arrivals, in multiples of saturation")
      ->check(CLI::Range(0.001, 1000.0));
  command->add_flag("--json", flags->json, "JSON lines instead of a table");
  flags->engine.max_sequences = workload.sequences_max;
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
