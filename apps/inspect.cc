// kvasir inspect: what is in a GGUF file.
#include "api/inspect.h"

#include <fmt/format.h>

#include "api/calc.h"
#include "apps/command.h"
#include "base/check.h"

namespace kvasir::apps {
namespace {

struct InspectFlags {
  std::string model = api::kDefaultModelPath;
  bool json = false;
};

template <typename T>
boost::json::value or_null(const std::optional<T>& value) {
  return value ? boost::json::value_from(*value) : boost::json::value(nullptr);
}

uint64_t bytes_per_token(const model::ModelConfig& config, api::CalcDtype dtype) {
  const auto kv = api::plan_kv({.layers = config.layers,
                                .kv_heads = config.kv_heads,
                                .head_dim = config.head_dim,
                                .dtype = dtype,
                                .tokens = 1});
  CHECK(kv.has_value());  // a model's dimensions are far from 2^64 bytes
  return kv->per_token;
}

void add_config(const model::ModelConfig& config, boost::json::object& report) {
  report["context_length"] = config.context_length;
  report["vocab_size"] = config.vocab_size;
  report["layers"] = config.layers;
  report["embedding_length"] = config.embedding_length;
  report["feed_forward_length"] = config.feed_forward_length;
  report["heads"] = config.heads;
  report["kv_heads"] = config.kv_heads;
  report["head_dim"] = config.head_dim;
  report["rope_base"] = config.rope.base;
  report["kv_groups"] = boost::json::array{
      {{"layers", config.layers}, {"kv_heads", config.kv_heads}, {"head_dim", config.head_dim}}};
  boost::json::object& bytes = report["bytes_per_token"].emplace_object();
  for (const api::CalcDtype dtype : api::kCalcDtypes) {
    bytes[api::calc_dtype_name(dtype)] = bytes_per_token(config, dtype);
  }
}

boost::json::object tokenizer_json(const api::TokenizerSummary& tokenizer) {
  return {{"model", tokenizer.model},
          {"pre_tokenizer", tokenizer.pre_tokenizer},
          {"tokens", tokenizer.tokens},
          {"bos", or_null(tokenizer.bos)},
          {"eos", or_null(tokenizer.eos)},
          {"end_of_generation", boost::json::value_from(tokenizer.end_of_generation)},
          {"chat_template", tokenizer.chat_template}};
}

boost::json::object report_json(const api::FileSummary& file) {
  boost::json::object report{{"architecture", file.architecture}, {"name", file.name},
                             {"parameters", file.parameters},     {"kv_groups", nullptr},
                             {"bytes_per_token", nullptr},        {"tokenizer", nullptr}};
  if (file.config) add_config(*file.config, report);
  if (file.tokenizer) report["tokenizer"] = tokenizer_json(*file.tokenizer);
  if (!file.problem.empty()) report["problem"] = file.problem;
  boost::json::array& tensors = report["tensors"].emplace_array();
  for (const api::TensorSummary& tensor : file.tensors) {
    tensors.push_back({{"name", tensor.name},
                       {"type", tensor.type},
                       {"shape", boost::json::value_from(tensor.shape)},
                       {"bytes", or_null(tensor.size_bytes)}});
  }
  return report;
}

std::string config_lines(const model::ModelConfig& config) {
  std::string text = fmt::format(
      "context        {} tokens\n"
      "dimensions     {} layers, embedding {}, feed-forward {}, vocabulary {}\n"
      "attention      {} heads, {} KV heads of {}, rope base {}\n"
      "KV per token  ",
      config.context_length, config.layers, config.embedding_length, config.feed_forward_length,
      config.vocab_size, config.heads, config.kv_heads, config.head_dim, config.rope.base);
  for (const api::CalcDtype dtype : api::kCalcDtypes) {
    text += fmt::format(" {} {} B{}", api::calc_dtype_name(dtype), bytes_per_token(config, dtype),
                        dtype == api::CalcDtype::kFp8 ? "\n" : ",");
  }
  return text;
}

// Text of a file, without what could steer a terminal.
std::string visible(const std::string& text) {
  std::string shown = text;
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return shown;
}

std::string table(const api::FileSummary& file) {
  std::string text = fmt::format("architecture   {}\nname           {}\nparameters     {}\n",
                                 visible(file.architecture), visible(file.name), file.parameters);
  if (file.config) text += config_lines(*file.config);
  if (file.tokenizer) {
    const api::TokenizerSummary& tokenizer = *file.tokenizer;
    text += fmt::format("tokenizer      {} {}, {} tokens, {} chat template\n",
                        visible(tokenizer.model), visible(tokenizer.pre_tokenizer),
                        tokenizer.tokens, tokenizer.chat_template ? "with" : "no");
  }
  if (!file.problem.empty()) text += fmt::format("can not be run {}\n", visible(file.problem));
  text += fmt::format("\n{} tensors (the first dimension is the contiguous one)\n",
                      file.tensors.size());
  for (const api::TensorSummary& tensor : file.tensors) {
    text += fmt::format("{:<32} {:<6} {:>12} {:>14}\n", visible(tensor.name), tensor.type,
                        fmt::format("{}", fmt::join(tensor.shape, "x")),
                        tensor.size_bytes ? fmt::format("{} B", *tensor.size_bytes) : "-");
  }
  return text;
}

CommandResult inspect(const InspectFlags& flags) {
  ASSIGN_OR_RETURN(const api::FileSummary file, api::inspect(flags.model));
  if (flags.json) {
    RETURN_IF_ERROR(write_json_line(report_json(file)));
  } else {
    RETURN_IF_ERROR(write_out(table(file)));
  }
  return kOk;
}

}  // namespace

void add_inspect(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("inspect", "What is in a GGUF file");
  const auto flags = std::make_shared<InspectFlags>();
  command->add_option("FILE,-m,--model", flags->model, "GGUF file")->capture_default_str();
  command->add_flag("--json", flags->json, "one JSON object");
  command->callback([&action, flags] { action = [flags] { return inspect(*flags); }; });
}

}  // namespace kvasir::apps
