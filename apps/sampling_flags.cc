#include "apps/sampling_flags.h"

#include <fmt/format.h>

#include <charconv>

namespace kvasir::apps {

void add_sampling_flags(CLI::App& command, SamplingFlags& flags) {
  sample::SamplingParams& s = flags.params;
  command.add_option("--temperature", s.temperature, "0: always the most likely token")
      ->capture_default_str();
  command.add_option("--top-k", s.top_k, "keep the K most likely tokens; 0: all");
  command.add_option("--top-p", s.top_p, "keep the likeliest tokens that sum up to P");
  command.add_option("--min-p", s.min_p, "keep tokens at least P times as likely as the best");
  command.add_option("--repetition-penalty", s.repetition_penalty,
                     "above 1: repeat less of prompt and answer");
  command.add_option("--presence-penalty", s.presence_penalty, "above 0: new tokens preferred");
  command.add_option("--frequency-penalty", s.frequency_penalty, "above 0: rarer tokens preferred");
  command.add_option("--seed", s.seed, "of the random choice")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--stop", flags.stop, "end the answer at this text (may be repeated)");
  command.add_option("--logit-bias", flags.logit_bias, "ID=BIAS, added to a token's logit");
}

base::Result<sample::SamplingParams> parse_sampling(const SamplingFlags& flags) {
  sample::SamplingParams params = flags.params;
  for (const std::string& entry : flags.logit_bias) {
    sample::LogitBias bias;
    const char* const end = entry.data() + entry.size();
    const auto [equals, id_error] = std::from_chars(entry.data(), end, bias.token);
    const bool has_equals = id_error == std::errc() && equals < end && *equals == '=';
    const auto [rest, bias_error] = std::from_chars(has_equals ? equals + 1 : end, end, bias.bias);
    if (!has_equals || bias_error != std::errc() || rest != end) {
      return base::bad_input(fmt::format("--logit-bias {}: give ID=BIAS, e.g. 42=-100", entry));
    }
    params.logit_bias.push_back(bias);
  }
  return params;
}

}  // namespace kvasir::apps
