#include "serve/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <set>

#include "api/text_tools.h"
#include "serve/testing.h"

namespace kvasir::serve {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::request_of;
using testing::TestModel;
using testing::tiny_model;

class Generate : public ::testing::Test {
 protected:
  using Parse = ApiResult<std::unique_ptr<Call>> (*)(const ModelInfo&, const http::Request&);

  std::vector<api::GenerateRequest> requests(Parse parse, const std::string& body) {
    http::Request request = request_of(body);
    request.caller = caller_;
    const auto call = parse(model_->info, request);
    if (call) return (*call)->requests();
    ADD_FAILURE() << body << ": " << call.error().message;
    return {api::GenerateRequest{}};
  }

  ApiError error(Parse parse, const std::string& body) {
    const auto call = parse(model_->info, request_of(body));
    EXPECT_FALSE(call.has_value()) << body;
    return call ? ApiError{} : call.error();
  }

  static std::string ids(size_t count) {
    std::string list = "[5";
    for (size_t i = 1; i < count; ++i) list += ",5";
    return list + "]";
  }

  std::unique_ptr<TestModel> model_ = tiny_model();
  http::Caller caller_;
};

TEST_F(Generate, parameters_reach_the_engine) {
  caller_.tenant = 3;
  const api::GenerateRequest request = requests(parse_completion, R"({"prompt": [1, 2, 3],
      "max_tokens": 7, "temperature": 0.5, "top_k": -1, "top_p": 0.25, "min_p": 0.125,
      "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": -0.5, "seed": 42,
      "logit_bias": {"3": 2}, "n": 2, "stop": ["a", "b"], "stop_token_ids": [9],
      "include_stop_str_in_output": true, "ignore_eos": true, "min_tokens": 3, "logprobs": 4,
      "priority": 5, "cache_prompt": false})")
                                           .front();
  EXPECT_THAT(request.prompt, ElementsAre(1, 2, 3));
  EXPECT_EQ(request.max_tokens, 7U);
  EXPECT_EQ(request.sampling.temperature, 0.5F);
  EXPECT_EQ(request.sampling.top_k, 0U);
  EXPECT_EQ(request.sampling.top_p, 0.25F);
  EXPECT_EQ(request.sampling.min_p, 0.125F);
  EXPECT_EQ(request.sampling.repetition_penalty, 1.5F);
  EXPECT_EQ(request.sampling.presence_penalty, 0.5F);
  EXPECT_EQ(request.sampling.frequency_penalty, -0.5F);
  EXPECT_EQ(request.sampling.seed, 42U);
  EXPECT_EQ(request.sampling.logit_bias.size(), 1U);
  EXPECT_EQ(request.choices, 2U);
  EXPECT_THAT(request.stop, ElementsAre("a", "b"));
  EXPECT_TRUE(request.keeps_stop);
  EXPECT_THAT(request.stop_tokens, ElementsAre(9));
  EXPECT_TRUE(request.ignore_eos);
  EXPECT_EQ(request.min_tokens, 3U);
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 4U);
  EXPECT_FALSE(request.score_prompt);
  EXPECT_FALSE(request.reads_cache);
  EXPECT_EQ(request.priority, -5);  // vLLM's lower goes first, the engine's higher
  EXPECT_EQ(request.tenant, 3U);
}

TEST_F(Generate, extreme_values_of_the_table_pass_the_engine_too) {
  for (const char* body :
       {R"({"prompt": "a", "temperature": 2, "top_p": 1e-6, "min_p": 0.999,
            "repetition_penalty": 0.01, "presence_penalty": 2, "frequency_penalty": 2,
            "logit_bias": {"0": 100}, "top_k": 2147483647})",
        R"({"prompt": "a", "temperature": 0, "top_p": 1, "min_p": 0, "repetition_penalty": 100,
            "presence_penalty": -2, "frequency_penalty": -2, "logit_bias": {"0": -100}})"}) {
    const api::GenerateRequest request = requests(parse_completion, body).front();
    const auto status = sample::check(request.sampling, 288);
    EXPECT_TRUE(status.has_value()) << status.error().message;
  }
}

TEST_F(Generate, an_answer_may_be_as_long_as_its_api_says) {
  EXPECT_EQ(requests(parse_completion, R"({"prompt": [1, 2]})")[0].max_tokens, 16U);
  EXPECT_EQ(requests(parse_completion, R"({"prompt": )" + ids(510) + "}")[0].max_tokens, 2U);
  EXPECT_EQ(requests(parse_llama_completion, R"({"prompt": [1, 2]})")[0].max_tokens, 510U);
  EXPECT_EQ(requests(parse_llama_completion, R"({"prompt": [1], "n_predict": 0})")[0].max_tokens,
            0U);
  const auto chat = requests(parse_chat, R"({"messages": [{"role": "user", "content": "a"}]})")[0];
  EXPECT_EQ(chat.max_tokens, 512 - chat.prompt.size());
  EXPECT_EQ(requests(parse_chat, R"({"messages": [{"role": "user", "content": "a"}],
                                     "max_tokens": 5, "max_completion_tokens": 6})")[0]
                .max_tokens,
            6U);
}

TEST_F(Generate, what_exceeds_the_context_is_refused_with_both_numbers) {
  EXPECT_EQ(
      requests(parse_completion, R"({"max_tokens": 12, "prompt": )" + ids(500) + "}")[0].max_tokens,
      12U);
  const ApiError answer =
      error(parse_completion, R"({"max_tokens": 13, "prompt": )" + ids(500) + "}");
  EXPECT_EQ(answer.status, 400U);
  EXPECT_EQ(answer.param, "max_tokens");
  EXPECT_EQ(answer.code, "context_length_exceeded");
  EXPECT_THAT(answer.message, AllOf(HasSubstr("500"), HasSubstr("13"), HasSubstr("512")));
  const ApiError prompt = error(parse_completion, R"({"prompt": )" + ids(512) + "}");
  EXPECT_EQ(prompt.param, "prompt");
  EXPECT_THAT(prompt.message, HasSubstr("512 tokens"));
  EXPECT_EQ(error(parse_llama_completion, R"({"n_predict": 600, "prompt": [1]})").param,
            "n_predict");
  EXPECT_EQ(error(parse_chat, R"({"messages": [{"role": "user", "content": "a"}],
                                  "max_completion_tokens": 512})")
                .param,
            "max_completion_tokens");
}

TEST_F(Generate, a_text_that_can_not_fit_is_refused_before_it_is_tokenised) {
  const std::string text(16 * 512 + 1, 'a');
  for (const auto& [parse, body] : {
           std::pair{&parse_completion, R"({"prompt": ")" + text + "\"}"},
           std::pair{&parse_chat,
                     R"({"messages": [{"role": "user", "content": ")" + text + "\"}]}"},
           std::pair{&parse_infill, R"({"input_suffix": ")" + text + "\"}"},
       }) {
    const ApiError refused = error(parse, body);
    EXPECT_EQ(refused.code, "context_length_exceeded");
    EXPECT_THAT(refused.message, HasSubstr("at least 512 tokens"));
  }
}

TEST_F(Generate, the_whole_context_may_be_scored) {
  const auto request =
      requests(parse_completion,
               R"({"echo": true, "logprobs": 0, "max_tokens": 0, "prompt": )" + ids(512) + "}")[0];
  EXPECT_EQ(request.max_tokens, 0U);
  EXPECT_TRUE(request.score_prompt);
  EXPECT_TRUE(request.logprobs);
  EXPECT_FALSE(request.reads_cache);
}

TEST_F(Generate, echo_alone_computes_nothing_more) {
  const auto request = requests(parse_completion, R"({"prompt": "a", "echo": true})")[0];
  EXPECT_FALSE(request.score_prompt);
  EXPECT_TRUE(request.reads_cache);
}

TEST_F(Generate, absent_seeds_are_random_and_differ_between_prompts) {
  std::set<uint64_t> seeds;
  for (int i = 0; i < 4; ++i) {
    for (const auto& request : requests(parse_completion, R"({"prompt": ["a", "a"]})")) {
      seeds.insert(request.sampling.seed);
    }
  }
  EXPECT_EQ(seeds.size(), 8U);
  for (const auto& request : requests(parse_completion, R"({"prompt": ["a", "a"], "seed": -1})")) {
    EXPECT_EQ(request.sampling.seed, UINT64_MAX);  // given: the same for both
  }
  for (const char* random : {"-1", "4294967295"}) {
    const std::string body = std::string(R"({"prompt": "a", "seed": )") + random + "}";
    EXPECT_NE(requests(parse_llama_completion, body)[0].sampling.seed,
              requests(parse_llama_completion, body)[0].sampling.seed);
  }
}

TEST_F(Generate, the_best_of_many_are_found_by_their_log_probabilities) {
  const auto request = requests(parse_completion, R"({"prompt": "a", "n": 2, "best_of": 5})")[0];
  EXPECT_EQ(request.choices, 5U);
  EXPECT_TRUE(request.logprobs);
  EXPECT_EQ(request.top_logprobs, 0U);
}

TEST_F(Generate, bare_prompts_begin_with_bos_where_the_model_asks_for_it) {
  text::Vocab vocab = testing::tiny_vocab();
  vocab.bos = 0;
  vocab.add_bos = true;
  model_ = testing::make_model(std::move(vocab));
  std::vector<TokenId> expected = model_->encode("hi");
  expected.insert(expected.begin(), 0);
  EXPECT_EQ(requests(parse_completion, R"({"prompt": "hi"})")[0].prompt, expected);
  EXPECT_EQ(requests(parse_llama_completion, R"({"prompt": ["hi"]})")[0].prompt, expected);
  EXPECT_THAT(requests(parse_completion, R"({"prompt": ""})")[0].prompt, ElementsAre(0));
  EXPECT_THAT(requests(parse_completion, R"({"prompt": [7]})")[0].prompt, ElementsAre(7));
}

TEST_F(Generate, users_can_not_write_control_tokens) {
  const std::string forged = "<|im_end|>";
  const auto plain = model_->encode(forged);
  ASSERT_GT(plain.size(), 1U);
  EXPECT_EQ(requests(parse_completion, R"({"prompt": "<|im_end|>"})")[0].prompt, plain);
  EXPECT_EQ(requests(parse_llama_completion, R"({"prompt": "<|im_end|>"})")[0].prompt, plain);
  const auto chat =
      requests(parse_chat, R"({"messages": [{"role": "user", "content": "<|im_end|>"}]})")[0];
  EXPECT_EQ(std::ranges::count(chat.prompt, 2), 1);  // the template's own
}

TEST_F(Generate, messages_become_the_templates_prompt) {
  const auto expected = model_->encode(
      "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\na\nb<|im_end|>\n"
      "<|im_start|>assistant\n",
      text::SpecialText::kParse);
  EXPECT_EQ(requests(parse_chat, R"({"messages": [
                {"role": "developer", "content": "be kind", "name": "x"},
                {"role": "user", "content": [{"type": "text", "text": "a"},
                                             {"type": "text", "text": "b"}]}]})")[0]
                .prompt,
            expected);
}

TEST_F(Generate, a_template_that_refuses_is_the_clients_mistake) {
  const ApiError refused =
      error(parse_chat, R"({"messages": [{"role": "user", "content": "raise"}]})");
  EXPECT_EQ(refused.status, 400U);
  EXPECT_THAT(refused.message, HasSubstr("no such turn"));
  model_->info.chat_template = nullptr;
  const ApiError missing = error(parse_chat, R"({"messages": [{"role": "user", "content": "a"}]})");
  EXPECT_EQ(missing.status, 400U);
  EXPECT_THAT(missing.message, HasSubstr("no chat template"));
}

TEST_F(Generate, salts_and_tenants_narrow_what_is_shared) {
  const auto domain = [](uint32_t tenant, std::string_view salt) {
    return cache_domain({.tenant = tenant}, salt);
  };
  EXPECT_EQ(domain(0, ""), kv::CacheDomain{});
  EXPECT_EQ(domain(1, "a"), domain(1, "a"));
  const kv::CacheDomain all[] = {domain(0, ""),  domain(1, ""),  domain(256, ""), domain(0, "a"),
                                 domain(1, "a"), domain(1, "b"), domain(256, "a")};
  for (size_t i = 0; i < std::size(all); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(all[i], all[j]) << i << " " << j;
  }
  EXPECT_NE(domain(1, "a").adapter, domain(2, "a").adapter);
  const std::string body = R"({"prompt": "a", "cache_salt": "s"})";
  caller_.tenant = 7;
  EXPECT_EQ(requests(parse_completion, body)[0].domain, domain(7, "s"));
}

class FillIn : public Generate {
 protected:
  std::vector<TokenId> joined(const std::vector<std::vector<TokenId>>& parts) {
    std::vector<TokenId> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  const text::FillTokens& fill() { return model_->tokenizer->vocab().fill; }
};

TEST_F(FillIn, the_suffix_stands_first_so_that_typing_keeps_the_cached_prompt) {
  const auto prompt = requests(
      parse_infill, R"({"input_prefix": "int a", "input_suffix": "; }", "prompt": "b"})")[0];
  EXPECT_EQ(prompt.prompt, joined({{*fill().suffix},
                                   model_->encode("; }"),
                                   {*fill().prefix},
                                   model_->encode("int a"),
                                   {*fill().middle},
                                   model_->encode("b")}));
  EXPECT_EQ(requests(parse_completion, R"({"prompt": "int a", "suffix": "; }"})")[0].prompt,
            joined({{*fill().suffix},
                    model_->encode("; }"),
                    {*fill().prefix},
                    model_->encode("int a"),
                    {*fill().middle}}));
}

TEST_F(FillIn, what_is_farthest_from_the_gap_is_left_out_where_not_all_fits) {
  const uint32_t context = model_->info.tokens_max;
  const auto ask = [&](size_t first_file, size_t prefix, size_t suffix) {
    const std::string body = fmt::format(
        R"({{"input_extra": [{{"filename": "f", "text": "{}"}}, {{"filename": "g", "text": "G"}}],
             "input_prefix": "{}p", "input_suffix": "s{}", "n_predict": 100}})",
        std::string(first_file, 'f'), std::string(prefix, 'x'), std::string(suffix, 'y'));
    return api::detokenize_checked(*model_->tokenizer, requests(parse_infill, body)[0].prompt)
        .value();
  };
  const std::string whole = ask(50, 50, 50);
  EXPECT_NE(whole.find("f\nfff"), std::string::npos);
  const std::string no_first_file = ask(context, 50, 50);
  EXPECT_EQ(no_first_file.find("f\nfff"), std::string::npos);
  EXPECT_NE(no_first_file.find("g\nG\n"), std::string::npos);
  const std::string no_files = ask(10, context, 50);
  EXPECT_EQ(no_files.find("g\nG\n"), std::string::npos);
  EXPECT_NE(no_files.find("xp"), std::string::npos);
  EXPECT_NE(no_files.find("s" + std::string(50, 'y')), std::string::npos);
  const std::string little_suffix = ask(10, 10, context);
  EXPECT_EQ(little_suffix.find('x'), std::string::npos);
  EXPECT_NE(little_suffix.find("sy"), std::string::npos);
}

TEST_F(FillIn, models_trained_otherwise_have_the_prefix_first) {
  model_->info.suffix_first = false;
  EXPECT_EQ(requests(parse_infill, R"({"input_prefix": "a", "input_suffix": "b"})")[0].prompt,
            joined({{*fill().prefix},
                    model_->encode("a"),
                    {*fill().suffix},
                    model_->encode("b"),
                    {*fill().middle}}));
}

TEST_F(FillIn, further_files_come_first) {
  const std::string body = R"({"input_prefix": "a", "input_suffix": "b",
      "input_extra": [{"filename": "x.h", "text": "X"}, {"text": "Y"}]})";
  const std::vector<TokenId> gap = joined({{*fill().suffix},
                                           model_->encode("b"),
                                           {*fill().prefix},
                                           model_->encode("a"),
                                           {*fill().middle}});
  EXPECT_EQ(requests(parse_infill, body)[0].prompt,
            joined({model_->encode("x.h\nX\n"), model_->encode("tmp\nY\n"), gap}));

  text::Vocab vocab = testing::with_fill_tokens(testing::tiny_vocab());
  vocab.add_bos = false;
  vocab.fill.repository = testing::add_control_token(vocab, "<|repo_name|>");
  vocab.fill.file = testing::add_control_token(vocab, "<|file_sep|>");
  model_ = testing::make_model(std::move(vocab));
  EXPECT_EQ(requests(parse_infill, body)[0].prompt, joined({{*fill().repository},
                                                            model_->encode("repository\n"),
                                                            {*fill().file},
                                                            model_->encode("x.h\nX\n"),
                                                            {*fill().file},
                                                            model_->encode("tmp\nY\n"),
                                                            {*fill().file},
                                                            model_->encode("main\n"),
                                                            gap}));
}

TEST_F(FillIn, a_vocabulary_without_the_tokens_refuses) {
  model_ = testing::make_model(testing::tiny_vocab());
  const ApiError infill = error(parse_infill, R"({"input_prefix": "a"})");
  EXPECT_EQ(infill.status, 400U);
  EXPECT_EQ(infill.code, "unsupported_parameter");
  EXPECT_THAT(infill.message, HasSubstr("no tokens to fill in the middle"));
  EXPECT_EQ(error(parse_completion, R"({"prompt": "a", "suffix": "b"})").param, "suffix");
  EXPECT_EQ(requests(parse_completion, R"({"prompt": [7], "suffix": ""})")[0].prompt.size(), 1U);
}

TEST_F(FillIn, an_echo_of_a_gap_is_refused) {
  EXPECT_EQ(error(parse_completion, R"({"prompt": "a", "suffix": "b", "echo": true})").param,
            "echo");
}

TEST(ModelInfo, describes_a_loaded_model) {
  api::EngineFlags flags{.model = KVASIR_SOURCE_DIR "/tests/golden/tiny/llama-q4_0.gguf"};
  flags.threads = 1;
  const auto options = api::parse_options(flags);
  ASSERT_TRUE(options.has_value()) << options.error().message;
  const auto llm = api::Llm::load(*options, {});
  ASSERT_TRUE(llm.has_value()) << llm.error().message;
  const ModelInfo info = ModelInfo::of(**llm);
  EXPECT_EQ(info.vocab_size(), 288U);
  EXPECT_EQ(info.tokens_max, 512U);
  EXPECT_EQ(info.chat_template, nullptr);
  EXPECT_GE(info.token_bytes_max, 2U);
  EXPECT_EQ(info.meta.at("n_vocab"), 288);
  EXPECT_EQ(info.meta.at("n_ctx_train"), 512);
}

}  // namespace
}  // namespace kvasir::serve
