// kvasir bench NAME: runs one workload, or load against a server; JSON lines or a table of the same
// figures.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "apps/command.h"
#include "bench/load.h"
#include "bench/workloads.h"

namespace kvasir::apps {
namespace {

struct BenchFlags {
  api::EngineFlags engine;
  bench::BenchOptions options;
  bool json = false;
};

struct LoadFlags {
  bench::LoadOptions options;
  bool json = false;
};

// What every line of a run repeats.
bool is_head(std::string_view key) {
  constexpr std::string_view kHead[] = {
      "bench",           "case",    "model", "cpu",      "cpu_family",   "cpu_model", "isa",
      "attention_order", "threads", "kv",    "kv_dtype", "block_tokens", "memory"};
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

// Runs `work` with hooks that show what it finds.
CommandResult run_shown(bool json,
                        const std::function<base::Status(const bench::BenchHooks&)>& work) {
  ProgressLine progress;
  base::Status written;
  const base::Status status =
      work({.on_line =
                [&](const boost::json::object& line) {
                  progress.clear();
                  written = json ? write_json_line(line) : write_out(readable_line(line));
                },
            .on_progress = [&](std::string_view text) { progress.show(text); },
            .cancelled = [&] { return interrupted() || !written; }});
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(status);
  return kOk;
}

CommandResult run(const bench::Workload& workload, BenchFlags flags) {
  ASSIGN_OR_RETURN(flags.options.engine, api::parse_options(flags.engine));
  return run_shown(flags.json, [&](const bench::BenchHooks& hooks) {
    return workload.run(flags.options, hooks);
  });
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

void add_load_server_options(CLI::App& command, bench::LoadOptions& options) {
  command.add_option("--url", options.url, "the server")->capture_default_str();
  command.add_option("--model", options.model, "as the server calls it; default: whatever it has");
  command.add_option("--api-key", options.api_keys, "again for each further tenant");
  command
      .add_option("--flood", options.flood, "requests of the first tenant for one of each other")
      ->check(CLI::Range(1U, 1'000'000U));
  command.add_option("--timeout", options.timeout_s, "seconds until a stream has failed")
      ->check(CLI::Range(0.001, 1e6));
}

void add_load_request_options(CLI::App& command, bench::LoadOptions& options) {
  command.add_option("--sequences,--concurrency", options.sequences, "streams at once")
      ->check(CLI::Range(1U, 1'000'000U))
      ->capture_default_str();
  command.add_option("--requests", options.requests, "streams in all; default: --sequences")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1'000'000'000}));
  command.add_option("--rate", options.rate, "arrivals per second instead of --sequences at once")
      ->check(CLI::Range(0.001, 1e6));
  command.add_option("--duration", options.duration_s, "seconds; streams open then are left")
      ->check(CLI::Range(0.001, 1e6));
  command.add_option("--tokens", options.tokens, "prompt tokens")
      ->check(CLI::Range(1U, 10'000'000U))
      ->capture_default_str();
  command.add_option("--shared-prefix", options.shared_prefix, "of these, common to all prompts");
  command.add_option("--generate", options.generate, "tokens to generate")
      ->check(CLI::Range(1U, 10'000'000U))
      ->capture_default_str();
  command.add_flag("--mixed", options.mixed, "every other request samples, temperature 0.8");
  command.add_option("--seed", options.seed, "of prompts, arrivals and samples");
}

// The load test is a client: it takes no engine options and loads no model.
void add_load(CLI::App& parent, Action& action) {
  CLI::App* command =
      parent.add_subcommand("load", "many clients of a running server at once (--url, --rate)");
  const auto flags = std::make_shared<LoadFlags>();
  add_load_server_options(*command, flags->options);
  add_load_request_options(*command, flags->options);
  CLI::Option* check_file = command->add_option("--check-file", flags->options.check_file,
                                                "write each complete stream there, JSON lines");
  CLI::Option* verify =
      command->add_option("--verify", flags->options.verify_file,
                          "send what --check-file wrote, one by one, and compare");
  verify->excludes(check_file);
  command->add_option("--samples", flags->options.samples, "so many of them; default: all")
      ->needs(verify);
  command->add_flag("--json", flags->json, "JSON lines instead of a table");
  command->callback([&action, flags] {
    action = [flags] {
      return run_shown(flags->json, [&](const bench::BenchHooks& hooks) {
        return bench::bench_load(flags->options, hooks);
      });
    };
  });
}

}  // namespace

void add_bench(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("bench", "Measure this machine and this model");
  command->require_subcommand(1);
  for (const bench::Workload& workload : bench::workloads()) {
    add_workload(*command, workload, action);
  }
  add_load(*command, action);
}

}  // namespace kvasir::apps
