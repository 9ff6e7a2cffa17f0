// kvasir eval: how likely the model finds a given text, token by token.
#include <fmt/format.h>

#include <cmath>

#include "api/npy_writer.h"
#include "apps/command.h"
#include "base/math.h"

namespace kvasir::apps {
namespace {

constexpr uint32_t kLogitRowsMax = 64;  // rows of one step; each is a whole vocabulary

struct EvalFlags {
  api::EngineFlags engine;
  PromptFlags prompt;
  std::string logits_out;
  bool json = false;
};

struct Scores {
  std::vector<TokenId> argmax;                 // the most likely token after each
  std::vector<std::optional<float>> logprobs;  // of each token; the first has none
  double nll_sum = 0.0;
};

base::Result<Scores> score(api::Llm& llm, const std::vector<TokenId>& tokens,
                           const std::string& logits_out) {
  std::optional<api::NpyWriter> writer;
  if (!logits_out.empty()) {
    ASSIGN_OR_RETURN(writer,
                     api::NpyWriter::create(logits_out, tokens.size(), llm.config().vocab_size));
  }
  ProgressLine progress;
  base::Status written;
  Scores scores;
  scores.logprobs.emplace_back();
  const auto on_row = [&](const api::ScoredRow& row) {
    scores.argmax.push_back(row.argmax);
    if (row.next_logprob) {
      scores.logprobs.emplace_back(row.next_logprob);
      scores.nll_sum -= double{*row.next_logprob};
    }
    if (writer && written) written = writer->write_row(row.logits);
  };
  const api::GenerateHooks hooks{
      .on_prefill =
          [&](uint64_t computed, uint64_t total) {
            progress.show(fmt::format("eval: {} of {} tokens", computed, total));
          },
      .cancelled = [&] { return interrupted() || !written; }};
  ASSIGN_OR_RETURN(const bool complete, llm.score(tokens, on_row, hooks));
  RETURN_IF_ERROR(written);
  if (!complete) return base::runtime_error("interrupted");
  if (!std::isfinite(scores.nll_sum)) {
    return base::runtime_error("the model gave logits that are not numbers; check the file");
  }
  if (writer) RETURN_IF_ERROR(writer->finish());
  return scores;
}

boost::json::object report_json(const std::vector<TokenId>& tokens, const Scores& scores) {
  boost::json::array logprobs;
  for (const std::optional<float>& logprob : scores.logprobs) {
    logprobs.push_back(logprob ? boost::json::value(*logprob) : boost::json::value(nullptr));
  }
  boost::json::object report{{"tokens", boost::json::value_from(tokens)},
                             {"logprobs", std::move(logprobs)},
                             {"argmax", boost::json::value_from(scores.argmax)},
                             {"nll", nullptr},
                             {"perplexity", nullptr}};
  if (tokens.size() > 1) {
    const double nll = scores.nll_sum / static_cast<double>(tokens.size() - 1);
    report["nll"] = nll;
    report["perplexity"] = base::exp_exact(nll);
  }
  return report;
}

CommandResult eval(const EvalFlags& flags) {
  ASSIGN_OR_RETURN(api::EngineOptions options, api::parse_options(flags.engine));
  options.logit_rows_max = kLogitRowsMax;
  ASSIGN_OR_RETURN(const std::unique_ptr<api::Llm> llm, load_llm(options));
  ASSIGN_OR_RETURN(const std::vector<TokenId> tokens,
                   read_prompt(*llm, flags.prompt, /*chat=*/false));
  ASSIGN_OR_RETURN(const Scores scores, score(*llm, tokens, flags.logits_out));
  const boost::json::object report = report_json(tokens, scores);
  if (flags.json) {
    RETURN_IF_ERROR(write_json_line(report));
  } else if (tokens.size() == 1) {
    RETURN_IF_ERROR(write_out("1 token, which follows nothing: no perplexity\n"));
  } else {
    RETURN_IF_ERROR(
        write_out(fmt::format("{} tokens, nll {:.5f}, perplexity {:.4f}\n", tokens.size(),
                              report.at("nll").as_double(), report.at("perplexity").as_double())));
  }
  return kOk;
}

}  // namespace

void add_eval(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("eval", "Log-probabilities and perplexity of a text");
  const auto flags = std::make_shared<EvalFlags>();
  CLI::Option_group* source = command->add_option_group("text", "exactly one of");
  add_prompt_flags(*source, flags->prompt, "text");
  source->require_option(1);
  command->add_option("--logits-out", flags->logits_out,
                      "write all logits there: NumPy .npy, float32 [tokens, vocabulary]");
  command->add_flag("--json", flags->json, "one JSON object");
  add_engine_flags(*command, flags->engine);
  command->callback([&action, flags] { action = [flags] { return eval(*flags); }; });
}

}  // namespace kvasir::apps
