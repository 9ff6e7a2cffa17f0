// kvasir run: one prompt or a batch of them, streamed as text or reported as JSON.
#include <fmt/format.h>

#include <algorithm>

#include "api/cache_json.h"
#include "apps/command.h"
#include "apps/sampling_flags.h"
#include "base/digest.h"

namespace kvasir::apps {
namespace {

struct RunFlags {
  api::EngineFlags engine;
  PromptFlags prompt;
  std::optional<std::string> batch_file;
  bool chat = false;
  uint32_t max_tokens = 128;
  SamplingFlags sampling;
  uint32_t choices = 1;
  uint32_t beams = 0;
  bool ignore_eos = false;
  uint32_t top_logprobs = 0;
  bool logprobs = false;
  bool json = false;
};

// Sampling flags, shared by the flags of the command and the objects of a batch file.
api::GenerateRequest request_of(const RunFlags& flags) {
  return {.max_tokens = flags.max_tokens,
          .sampling = flags.sampling.params,
          .stop = flags.sampling.stop,
          .ignore_eos = flags.ignore_eos,
          .logprobs = flags.logprobs || flags.top_logprobs > 0,
          .top_logprobs = flags.top_logprobs,
          .digest_logits = flags.json && flags.beams == 0,
          .choices = flags.choices,
          .beams = flags.beams};
}

boost::json::object timing_json(const api::Llm& llm, const engine::RequestStats& stats) {
  const auto per_second = [](uint64_t count, uint64_t us) {
    return us == 0 ? 0.0 : static_cast<double>(count) * 1e6 / static_cast<double>(us);
  };
  const uint64_t admitted_us = stats.admitted_us.value_or(stats.first_token_us);
  const uint64_t decoded = stats.tokens_generated == 0 ? 0 : stats.tokens_generated - 1;
  return {{"load_ms", llm.load_ms()},
          {"ttft_ms", static_cast<double>(stats.first_token_us - stats.submitted_us) / 1000.0},
          {"prefill_tok_s",
           per_second(stats.prompt_tokens_computed, stats.first_token_us - admitted_us)},
          {"decode_tok_s", per_second(decoded, stats.finished_us - stats.first_token_us)}};
}

// Why prompt tokens were not served from the cache.
boost::json::object misses_json(const kv::MatchReport& match) {
  boost::json::object misses;
  for (size_t i = 0; i < kv::kMissReasons; ++i) {
    if (match.missed[i] == 0) continue;
    misses[kv::miss_reason_name(static_cast<kv::MissReason>(i))] = match.missed[i];
  }
  return misses;
}

boost::json::object kv_json(const api::Llm& llm, const engine::RequestStats& stats) {
  const engine::EngineStats engine = llm.stats();
  return {{"mode", kv::cache_mode_name(llm.options().kv_mode)},
          {"dtype", quant::kv_dtype_name(llm.options().kv_dtype)},
          {"pairs_computed", stats.pairs_computed},
          {"bytes_per_token", llm.bytes_per_token()},
          {"block_tokens", llm.options().block_tokens},
          {"blocks_used_peak", engine.cache.blocks().referenced_peak},
          {"blocks_capacity", engine.cache.blocks().capacity()},
          {"tokens_cached", stats.tokens_cached},
          {"tokens_missed", misses_json(stats.match)},
          {"diverged_at", stats.match.diverged_at ? boost::json::value(*stats.match.diverged_at)
                                                  : boost::json::value(nullptr)},
          {"preemptions", stats.preemptions},
          {"promise_wait_ms", static_cast<double>(stats.promise_wait_us) / 1000.0},
          {"cache", api::cache_json(engine.cache)}};
}

boost::json::array logprobs_json(const api::Completion& completion) {
  boost::json::array details;
  for (size_t i = 0; i < completion.details.size(); ++i) {
    boost::json::array top;
    for (const sample::TokenLogprob& other : completion.details[i].top) {
      top.push_back({{"token", other.token}, {"logprob", other.logprob}});
    }
    details.push_back({{"token", completion.tokens[i]},
                       {"logprob", completion.details[i].logprob},
                       {"top", std::move(top)}});
  }
  return details;
}

boost::json::object report_json(const api::Llm& llm, const api::GenerateRequest& request,
                                const api::Completion& completion) {
  const engine::RequestStats& stats = completion.stats;
  const api::MemoryUse memory = llm.memory_use();
  boost::json::object report{
      {"prompt_tokens", stats.prompt_tokens},
      {"tokens", boost::json::value_from(completion.tokens)},
      {"text", completion.text},
      {"finish_reason", api::end_reason_name(completion.reason)},
      {"seed", request.sampling.seed},
      {"isa", kernels::isa_name(llm.options().kernels->isa)},
      {"attention_order", kernels::attention_order_name(llm.options().attention_order)},
      {"threads", llm.options().threads},
      {"kv", kv_json(llm, stats)},
      {"memory",
       {{"weights_bytes", memory.weights_bytes},
        {"kv_bytes", memory.kv_bytes},
        {"activations_bytes", memory.activations_bytes},
        {"total_bytes", memory.total_bytes()}}},
      {"timing", timing_json(llm, stats)}};
  if (request.choices > 1 || request.beams > 0) report["choice"] = completion.choice;
  if (completion.score) report["score"] = *completion.score;
  if (stats.logits_digest) report["logits_sha256"] = base::to_hex(*stats.logits_digest);
  if (request.logprobs) report["logprobs"] = logprobs_json(completion);
  return report;
}

void print_timing(const api::Llm& llm, const api::Completion& completion) {
  const engine::RequestStats& stats = completion.stats;
  const boost::json::object timing = timing_json(llm, stats);
  fmt::print(stderr,
             "[{}: {} prompt tokens at {:.0f} tok/s, first token after {:.0f} ms, {} generated at "
             "{:.1f} tok/s, model loaded in {:.0f} ms]\n",
             api::end_reason_name(completion.reason), stats.prompt_tokens,
             timing.at("prefill_tok_s").as_double(), timing.at("ttft_ms").as_double(),
             stats.tokens_generated, timing.at("decode_tok_s").as_double(), llm.load_ms());
}

// One line of a batch file: an object with "prompt" or "tokens", and optionally "max_tokens",
// "temperature", "seed", "chat".
base::Result<api::GenerateRequest> parse_batch_line(const api::Llm& llm, const RunFlags& flags,
                                                    const std::string& line) {
  boost::json::error_code error;
  const boost::json::value value = boost::json::parse(line, error);
  if (error || !value.is_object()) return base::bad_input("not a JSON object");
  const boost::json::object& object = value.as_object();
  constexpr std::string_view kFields[] = {"prompt",     "tokens",      "chat",
                                          "max_tokens", "temperature", "seed"};
  for (const auto& field : object) {
    if (std::ranges::find(kFields, std::string_view(field.key())) == std::end(kFields)) {
      return base::bad_input(fmt::format("unknown field \"{}\"; known: {}",
                                         std::string(field.key()), fmt::join(kFields, ", ")));
    }
  }
  if (object.contains("prompt") == object.contains("tokens")) {
    return base::bad_input("give either \"prompt\" or \"tokens\"");
  }
  api::GenerateRequest request = request_of(flags);
  try {
    bool chat = flags.chat;
    if (const auto* field = object.if_contains("chat")) chat = field->as_bool();
    if (const auto* field = object.if_contains("max_tokens")) {
      request.max_tokens = field->to_number<uint32_t>();
    }
    if (const auto* field = object.if_contains("temperature")) {
      request.sampling.temperature = field->to_number<float>();
    }
    if (const auto* field = object.if_contains("seed")) {
      request.sampling.seed = field->to_number<uint64_t>();
    }
    if (const auto* field = object.if_contains("tokens")) {
      for (const boost::json::value& id : field->as_array()) {
        request.prompt.push_back(id.to_number<TokenId>());
      }
      return request;
    }
    const std::string prompt(object.at("prompt").as_string());
    ASSIGN_OR_RETURN(request.prompt, encode_prompt(llm, prompt, chat));
  } catch (const std::exception& exception) {
    return base::bad_input(
        fmt::format("a field is missing or of the wrong type: {}", exception.what()));
  }
  return request;
}

base::Result<std::vector<api::GenerateRequest>> read_batch(const api::Llm& llm,
                                                           const RunFlags& flags) {
  ASSIGN_OR_RETURN(const std::string text, read_text(*flags.batch_file));
  std::vector<api::GenerateRequest> requests;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto request = parse_batch_line(llm, flags, line);
    if (!request) {
      return base::bad_input(
          fmt::format("{} line {}: {}", *flags.batch_file, number, request.error().message));
    }
    requests.push_back(*std::move(request));
  }
  if (requests.empty()) {
    return base::bad_input(fmt::format("{}: holds no requests", *flags.batch_file));
  }
  return requests;
}

base::Result<std::vector<api::GenerateRequest>> read_requests(const api::Llm& llm,
                                                              const RunFlags& flags) {
  if (flags.batch_file) return read_batch(llm, flags);
  api::GenerateRequest request = request_of(flags);
  ASSIGN_OR_RETURN(request.prompt, read_prompt(llm, flags.prompt, flags.chat));
  return std::vector{std::move(request)};
}

// Before anything is sized by them.
base::Status check_answers(const RunFlags& flags) {
  if (flags.choices == 0 || flags.choices > engine::kChoicesMax) {
    return base::bad_input(
        fmt::format("--choices {}: use 1 to {}", flags.choices, engine::kChoicesMax));
  }
  if (flags.beams > engine::kChoicesMax) {
    return base::bad_input(
        fmt::format("--beams {}: use at most {}", flags.beams, engine::kChoicesMax));
  }
  return {};
}

CommandResult run(RunFlags flags) {
  ASSIGN_OR_RETURN(api::EngineOptions options, api::parse_options(flags.engine));
  ASSIGN_OR_RETURN(flags.sampling.params, parse_sampling(flags.sampling));
  RETURN_IF_ERROR(check_answers(flags));
  options.sequences_max = std::max({options.sequences_max, flags.choices, flags.beams});
  ASSIGN_OR_RETURN(const std::unique_ptr<api::Llm> llm, load_llm(options));
  ASSIGN_OR_RETURN(const std::vector<api::GenerateRequest> requests, read_requests(*llm, flags));

  const bool single = flags.choices == 1 && flags.beams <= 1;
  const bool stream = requests.size() == 1 && single && !flags.json;
  base::Status written;
  ProgressLine progress;
  api::GenerateHooks hooks = streaming_hooks(progress, written);
  if (!stream) hooks.on_text = {};
  ASSIGN_OR_RETURN(const std::vector<api::Completion> completions, llm->generate(requests, hooks));
  progress.clear();
  RETURN_IF_ERROR(written);
  for (const api::Completion& completion : completions) {
    if (flags.json) {
      const api::GenerateRequest& request = requests[completion.request];
      RETURN_IF_ERROR(write_json_line(report_json(*llm, request, completion)));
    } else if (!stream) {
      RETURN_IF_ERROR(write_out(completion.text + "\n"));
    }
  }
  if (stream) {
    RETURN_IF_ERROR(write_out("\n"));
    print_timing(*llm, completions[0]);
  }
  for (const api::Completion& completion : completions) {
    if (completion.reason == api::EndReason::kModelFailed) {
      return base::runtime_error("the model gave logits that are not numbers; check the file");
    }
  }
  return kOk;
}

}  // namespace

void add_run(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("run", "Complete a prompt, or a file of them");
  const auto flags = std::make_shared<RunFlags>();
  CLI::Option_group* source = command->add_option_group("prompt", "exactly one of");
  add_prompt_flags(*source, flags->prompt, "prompt");
  source->add_option("--batch", flags->batch_file,
                     "JSON lines with \"prompt\" or \"tokens\", and \"max_tokens\", "
                     "\"temperature\", \"seed\", \"chat\" where they differ");
  source->require_option(1);
  command->add_flag("--chat", flags->chat, "wrap the prompt in the model's chat template");
  command->add_option("-n,--max-tokens", flags->max_tokens, "tokens to generate at most")
      ->capture_default_str();
  add_sampling_flags(*command, flags->sampling);
  command->add_option("--choices", flags->choices, "answers to sample; the prompt is computed once")
      ->capture_default_str();
  command->add_option("--beams", flags->beams,
                      "beam search of this width: its best answers, best first");
  command->add_flag("--ignore-eos", flags->ignore_eos, "go on past end-of-text tokens");
  command->add_flag("--logprobs", flags->logprobs, "report log-probabilities (with --json)");
  command->add_option("--top-logprobs", flags->top_logprobs, "and those of the N best tokens");
  command->add_flag("--json", flags->json, "one JSON object per request instead of text");
  add_engine_flags(*command, flags->engine);
  command->callback([&action, flags] { action = [flags] { return run(*flags); }; });
}

}  // namespace kvasir::apps
