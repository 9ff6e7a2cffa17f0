// soak --tokens N --seed S [--seconds X] [--family F] [--check-every STEPS] [--setup-tokens N]
// Soaks engine, scheduler and cache on the fake model. Status 0: everything was right.
#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "sim/soak.h"

int main(int argc, char** argv) {
  kvasir::sim::SoakOptions options;
  double seconds = 0.0;
  std::string family = "any";
  CLI::App app("Soaks the KV cache with random clients on a model that is a hash", "soak");
  app.add_option("--tokens", options.tokens, "tokens to serve")->capture_default_str();
  app.add_option("--seed", options.seed, "the first setup's")->capture_default_str();
  app.add_option("--seconds", seconds, "stop after so long");
  app.add_option("--family", family,
                 "any, one_group, full_and_window, window_only, cross, pressure")
      ->capture_default_str();
  app.add_option("--check-every", options.steps_per_check, "steps between checks of all books")
      ->capture_default_str();
  app.add_option("--setup-tokens", options.tokens_per_setup, "tokens until options change")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  if (seconds > 0.0) options.seconds = seconds;
  const auto parsed = kvasir::sim::parse_soak_family(family);
  if (!parsed || options.steps_per_check == 0 || options.tokens_per_setup == 0) {
    fmt::print(stderr, "soak: unknown family, or zero steps or tokens; see --help\n");
    return 2;
  }
  options.family = *parsed;
  fmt::print("soak: seed {}, family {}, {} tokens, {} a setup, checked every {} steps\n",
             options.seed, family, options.tokens, options.tokens_per_setup,
             options.steps_per_check);
  const kvasir::sim::SoakReport report = kvasir::sim::run_soak(options);
  fmt::print("{}", describe(report.figures));
  if (!report.failure) return 0;
  fmt::print(stderr, "soak: FAILED: {}\n", *report.failure);
  return 1;
}
