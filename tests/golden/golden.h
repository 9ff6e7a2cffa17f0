// Reading the reference data of tests/golden. Test code: a broken file aborts the test.
#pragma once

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "api/llm.h"

namespace kvasir::golden {

inline std::string path_of(const std::string& name) {
  return std::string(KVASIR_SOURCE_DIR) + "/tests/golden/" + name;
}

inline std::string default_model() {
  return std::string(KVASIR_SOURCE_DIR) + "/" + api::kDefaultModelPath;
}

inline boost::json::object read_json(const std::string& name) {
  std::ifstream file(path_of(name));
  EXPECT_TRUE(file.good()) << name;
  std::stringstream text;
  text << file.rdbuf();
  return boost::json::parse(text.str()).as_object();
}

template <typename T>
std::vector<T> numbers(const boost::json::value& array) {
  std::vector<T> values;
  for (const boost::json::value& v : array.as_array()) values.push_back(v.to_number<T>());
  return values;
}

inline std::unique_ptr<api::Llm> load(const api::EngineFlags& flags, uint32_t logit_rows = 64) {
  base::Result<api::EngineOptions> options = api::parse_options(flags);
  EXPECT_TRUE(options.has_value()) << options.error().message;
  options->logit_rows_max = logit_rows;
  base::Result<std::unique_ptr<api::Llm>> llm = api::Llm::load(*options, {});
  EXPECT_TRUE(llm.has_value()) << llm.error().message;
  return *std::move(llm);
}

// Everything about a scored prompt that tests compare.
struct Scores {
  std::vector<TokenId> argmax;
  std::vector<double> next_logprobs;       // one less than rows
  std::vector<std::vector<float>> logits;  // [rows][vocab], if asked for
};

inline Scores score(api::Llm& llm, const std::vector<TokenId>& tokens, bool keep_logits) {
  Scores scores;
  const auto done = llm.score(tokens,
                              [&](const api::ScoredRow& row) {
                                scores.argmax.push_back(row.argmax);
                                if (row.next_logprob)
                                  scores.next_logprobs.push_back(*row.next_logprob);
                                if (keep_logits)
                                  scores.logits.emplace_back(row.logits.begin(), row.logits.end());
                              },
                              {});
  EXPECT_TRUE(done.has_value()) << done.error().message;
  return scores;
}

inline std::vector<TokenId> greedy(api::Llm& llm, std::vector<TokenId> prompt, uint32_t count) {
  const api::GenerateRequest request{
      .prompt = std::move(prompt), .max_tokens = count, .ignore_eos = true};
  const auto completions = llm.generate(std::span(&request, 1), {});
  EXPECT_TRUE(completions.has_value()) << completions.error().message;
  return completions->at(0).tokens;
}

}  // namespace kvasir::golden
