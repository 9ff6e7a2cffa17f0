// How tokens are chosen: the flags that run and chat share.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "api/llm.h"
#include "base/result.h"

namespace kvasir::apps {

struct SamplingFlags {
  sample::SamplingParams params;
  std::vector<std::string> stop;
  std::vector<std::string> logit_bias;  // "ID=BIAS", as written
};

void add_sampling_flags(CLI::App& command, SamplingFlags& flags);

// The parameters with the biases read. Error: a bias that is not ID=BIAS.
base::Result<sample::SamplingParams> parse_sampling(const SamplingFlags& flags);

}  // namespace kvasir::apps
