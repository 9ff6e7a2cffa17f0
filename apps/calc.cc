// kvasir calc: what a model and its KV cache take in memory, as a table or as JSON.
#include "api/calc.h"

#include <fmt/format.h>

#include "apps/command.h"

namespace kvasir::apps {
namespace {

struct CalcFlags {
  std::optional<std::string> model;
  std::optional<std::string> preset;
  std::optional<int64_t> layers;
  std::optional<int64_t> kv_heads;
  std::optional<int64_t> head_dim;
  std::string dtype;
  std::optional<int64_t> tokens;
  int64_t sequences = 1;
  std::optional<uint32_t> max_sequences;
  uint32_t block_tokens = 32;
  std::string prefill_chunk;
  std::string weights = "native";
  std::string weights_dtype = "f16";
  bool json = false;
};

base::Result<api::CalcDtype> parse_dtype(const char* flag, const std::string& name) {
  if (const auto dtype = api::parse_calc_dtype(name)) return *dtype;
  return base::bad_input(
      fmt::format("{} {}: no such type; use f32, f16, bf16, int8 or fp8", flag, name));
}

base::Result<uint64_t> parse_count(const char* flag, int64_t count) {
  if (count > 0) return static_cast<uint64_t>(count);
  return base::bad_input(fmt::format("{} {}: use at least 1", flag, count));
}

base::Status check_source(const CalcFlags& flags) {
  const bool any_shape = flags.layers || flags.kv_heads || flags.head_dim;
  const bool whole_shape = flags.layers && flags.kv_heads && flags.head_dim;
  const int sources = int{flags.model.has_value()} + int{flags.preset.has_value()} + int{any_shape};
  if (sources == 1 && any_shape == whole_shape) return {};
  return base::bad_input(
      "give exactly one of --model, --preset, or --layers with --kv-heads and --head-dim");
}

base::Result<api::CalcRequest> parse_request(const CalcFlags& flags) {
  RETURN_IF_ERROR(check_source(flags));
  // The checks of prefill chunk, block size and weights are those of the engine's options.
  api::EngineFlags engine{.block_tokens = flags.block_tokens, .weights = flags.weights};
  if (!flags.prefill_chunk.empty()) engine.prefill_chunk = flags.prefill_chunk;
  if (flags.max_sequences) engine.max_sequences = *flags.max_sequences;
  ASSIGN_OR_RETURN(const api::EngineOptions options, api::parse_options(engine));
  api::CalcRequest request{.model_path = flags.model,
                           .preset = flags.preset,
                           .block_tokens = options.block_tokens,
                           .weights = options.weights};
  if (flags.layers) {
    api::KvShape& shape = request.shape.emplace();
    ASSIGN_OR_RETURN(shape.layers, parse_count("--layers", *flags.layers));
    ASSIGN_OR_RETURN(shape.kv_heads, parse_count("--kv-heads", *flags.kv_heads));
    ASSIGN_OR_RETURN(shape.head_dim, parse_count("--head-dim", *flags.head_dim));
  }
  if (flags.tokens) {
    ASSIGN_OR_RETURN(request.tokens, parse_count("--tokens", *flags.tokens));
  }
  ASSIGN_OR_RETURN(request.sequences, parse_count("--sequences", flags.sequences));
  if (flags.max_sequences) request.sequences_max = options.sequences_max;
  if (!flags.dtype.empty()) {
    ASSIGN_OR_RETURN(request.dtype, parse_dtype("--dtype", flags.dtype));
  }
  ASSIGN_OR_RETURN(request.weights_dtype, parse_dtype("--weights-dtype", flags.weights_dtype));
  if (!flags.prefill_chunk.empty()) request.prefill_chunk = options.prefill_chunk.value_or(0);
  return request;
}

boost::json::value or_null(const std::optional<uint64_t>& number) {
  return number ? boost::json::value(*number) : boost::json::value(nullptr);
}

boost::json::object report_json(const api::CalcReport& report) {
  const api::KvDemand& demand = report.demand;
  const api::KvBytes& kv = report.kv;
  boost::json::value terms = nullptr;
  if (report.activations_bytes) {
    boost::json::object& object = terms.emplace_object();
    for (const api::ActivationTerm& term : report.activation_terms) {
      object[term.name] = term.size_bytes;
    }
  }
  return {{"name", report.name},
          {"layers", demand.layers},
          {"kv_heads", demand.kv_heads},
          {"head_dim", demand.head_dim},
          {"dtype", api::calc_dtype_name(demand.dtype)},
          {"tokens", demand.tokens},
          {"sequences", demand.sequences},
          {"block_tokens", demand.block_tokens},
          {"key_bytes_per_token_layer", kv.per_token_layer / 2},
          {"value_bytes_per_token_layer", kv.per_token_layer / 2},
          {"bytes_per_token_layer", kv.per_token_layer},
          {"bytes_per_token", kv.per_token},
          {"kv_payload_bytes", kv.payload},
          {"kv_scale_bytes", kv.scales},
          {"kv_padding_bytes", kv.padding},
          {"kv_bytes", kv.total},
          {"parameters", or_null(report.parameters)},
          {"weights_bytes", or_null(report.weights_bytes)},
          {"activations_bytes", or_null(report.activations_bytes)},
          {"activation_terms", std::move(terms)},
          {"total_bytes", or_null(report.total_bytes)}};
}

// 2147483648 -> "2,147,483,648"
std::string grouped(uint64_t number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string in_units(uint64_t bytes) {
  const auto number = static_cast<double>(bytes);
  if (bytes >= 1000000000) return fmt::format("{:.2f} GB", number / 1e9);
  if (bytes >= 1000000) return fmt::format("{:.2f} MB", number / 1e6);
  if (bytes >= 1000) return fmt::format("{:.2f} kB", number / 1e3);
  return fmt::format("{} B", bytes);
}

std::string row(std::string_view name, const std::optional<uint64_t>& bytes,
                std::string_view note = "") {
  if (!bytes) return fmt::format("{:<24}{:>22}\n", name, "-");
  std::string line = fmt::format("{:<24}{:>22}{:>12}", name, grouped(*bytes), in_units(*bytes));
  if (!note.empty()) line += fmt::format("   {}", note);
  return line + "\n";
}

std::string table(const api::CalcReport& report) {
  const api::KvDemand& demand = report.demand;
  const api::KvBytes& kv = report.kv;
  const std::string half = grouped(kv.per_token_layer / 2);
  std::string text =
      fmt::format("{}{}{} layers, {} KV heads of {}, {}, {} x {} tokens in blocks of {}\n\n",
                  report.name, report.name.empty() ? "" : ": ", demand.layers, demand.kv_heads,
                  demand.head_dim, api::calc_dtype_name(demand.dtype), demand.sequences,
                  grouped(demand.tokens), demand.block_tokens);
  text += fmt::format("{:<24}{:>22}\n", "", "bytes");
  text +=
      row("per token and layer", kv.per_token_layer, fmt::format("keys {}, values {}", half, half));
  text += row("per token", kv.per_token);
  text += row("KV payload", kv.payload,
              fmt::format("2 x {} layers x {} heads x {} x {} B x {} x {} tokens", demand.layers,
                          demand.kv_heads, demand.head_dim, api::element_bytes(demand.dtype),
                          demand.sequences, demand.tokens));
  text += row("KV scales", kv.scales);
  text += row("KV padding", kv.padding, "unused slots of the last block");
  for (const api::ActivationTerm& term : report.activation_terms) {
    text += row(fmt::format("  {}", term.name), term.size_bytes);
  }
  text += "\n";
  text += row("weights", report.weights_bytes,
              report.parameters ? fmt::format("{} parameters", grouped(*report.parameters)) : "");
  text += row("KV cache", kv.total, "payload, scales and padding");
  text += row("activations", report.activations_bytes,
              report.activations_bytes ? "the indented terms above" : "");
  text += row("total", report.total_bytes);
  return text;
}

CommandResult calc(const CalcFlags& flags) {
  ASSIGN_OR_RETURN(const api::CalcRequest request, parse_request(flags));
  ASSIGN_OR_RETURN(const api::CalcReport report, api::calculate(request));
  if (flags.json) {
    RETURN_IF_ERROR(write_json_line(report_json(report)));
  } else {
    RETURN_IF_ERROR(write_out(table(report)));
  }
  return kOk;
}

std::string preset_names() {
  std::string names;
  for (const api::Preset& preset : api::presets()) {
    names += fmt::format("{}{}", names.empty() ? "" : ", ", preset.name);
  }
  return names;
}

}  // namespace

void add_calc(CLI::App& cli, Action& action) {
  CLI::App* command = cli.add_subcommand("calc", "Memory that a model and its KV cache take");
  const auto flags = std::make_shared<CalcFlags>();
  command->add_option("-m,--model", flags->model, "GGUF file: what this engine will allocate");
  command->add_option("--preset", flags->preset,
                      fmt::format("textbook figures of {}", preset_names()));
  command->add_option("--layers", flags->layers, "or a bare shape: layers,");
  command->add_option("--kv-heads", flags->kv_heads, "heads of keys and values,");
  command->add_option("--head-dim", flags->head_dim, "and their dimension");
  command->add_option(
      "--dtype", flags->dtype,
      "keys and values: f32, f16, bf16, int8 or fp8 (default: f16; of a file bf16)");
  command->add_option(
      "--tokens", flags->tokens,
      "tokens of each sequence (default: the model's context; of a bare shape 4096)");
  command->add_option("--sequences", flags->sequences, "sequences (default: 1)");
  command->add_option("--max-sequences", flags->max_sequences,
                      "sequences the engine is made for (default: that of kvasir run)");
  command->add_option("--block-tokens", flags->block_tokens, "tokens of a KV block: 16 or 32")
      ->capture_default_str();
  command->add_option("--prefill-chunk", flags->prefill_chunk,
                      "prompt tokens computed in one step, or all (default: all; of a file that "
                      "of kvasir run)");
  command->add_option("--weights", flags->weights, "of a file: native or f32")
      ->capture_default_str();
  command->add_option("--weights-dtype", flags->weights_dtype, "of a preset")
      ->capture_default_str();
  command->add_flag("--json", flags->json, "one JSON object");
  command->callback([&action, flags] { action = [flags] { return calc(*flags); }; });
}

}  // namespace kvasir::apps
