#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "text/testing_vocab.h"

namespace kvasir::text {
namespace {

using ::testing::HasSubstr;

Tokenizer chat_tokenizer() {
  Vocab vocab = testing::bpe_vocab("gpt-2", {});
  vocab.bos = testing::add_token(vocab, "<s>", TokenType::kControl);
  vocab.eos = testing::add_token(vocab, "</s>", TokenType::kControl);
  return testing::make_tokenizer(vocab);
}

const std::vector<ChatMessage> kChat = {{"system", "be kind"}, {"user", " hi "}};

std::string rendered(const std::string& source, const std::vector<ChatMessage>& chat = kChat) {
  const Tokenizer tokenizer = chat_tokenizer();
  const auto made = ChatTemplate::create(source, tokenizer.vocab());
  if (!made) return "create: " + made.error().message;
  const auto result = made->render(chat, true, tokenizer);
  return result ? result->text : "render: " + result.error().message;
}

TEST(ChatTemplate, gives_messages_tokens_and_the_prompt_flag) {
  EXPECT_EQ(rendered("{{ bos_token }}{% for m in messages %}{{ m['role'] }}={{ m.content }};"
                     "{% endfor %}{{ eos_token }}{{ add_generation_prompt }}"),
            "<s>system=be kind;user= hi ;</s>True");
  EXPECT_EQ(rendered("{{ tools is none }}{{ documents is none }}{{ enable_thinking is defined }}"),
            "TrueTrueFalse");
}

TEST(ChatTemplate, blocks_swallow_their_line) {
  EXPECT_EQ(rendered("a\n  {% if true %}\nb\n  {% endif %}\nc"), "a\nb\nc");
}

TEST(ChatTemplate, python_methods_and_loop_controls_work) {
  EXPECT_EQ(rendered("{{ messages[1].content.strip() }}{{ 'a,b'.split(',')[-1] }}"
                     "{{ 'abc'.startswith('ab') }}"),
            "hibTrue");
  EXPECT_EQ(rendered("{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}"
                     "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
            "02");
}

TEST(ChatTemplate, tojson_writes_what_python_writes) {
  EXPECT_EQ(rendered("{{ {'b': [1, 2.5, true, none], 'a': '<é>\"\\n'} | tojson }}"),
            "{\"b\": [1, 2.5, true, null], \"a\": \"<é>\\\"\\n\"}");
  EXPECT_EQ(rendered("{{ {'b': 1, 'a': []} | tojson(indent=2, sort_keys=true) }}"),
            "{\n  \"a\": [],\n  \"b\": 1\n}");
  EXPECT_EQ(rendered("{{ 'é😀' | tojson(ensure_ascii=true) }}"), "\"\\u00e9\\ud83d\\ude00\"");
  EXPECT_EQ(rendered("{{ [1, {'a': 2}] | tojson(separators=(',', ':')) }}"), "[1,{\"a\":2}]");
}

TEST(ChatTemplate, strftime_now_tells_the_date) {
  const auto today = std::chrono::floor<std::chrono::days>(std::chrono::system_clock::now());
  const int year = static_cast<int>(std::chrono::year_month_day(today).year());
  // New Year may pass while the test runs, or have passed in the local time zone.
  EXPECT_NEAR(std::stoi(rendered("{{ strftime_now('%Y') }}")), year, 1);
  EXPECT_THAT(rendered("{{ strftime_now('%!') }}"), HasSubstr("render: chat template, line 1"));
}

TEST(ChatTemplate, generation_tags_change_nothing) {
  EXPECT_EQ(rendered("a {% generation %}b{% endgeneration %} c{%- generation -%} d "
                     "{%- endgeneration %}"),
            "a b cd");
}

TEST(ChatTemplate, exceptions_of_the_template_are_passed_on) {
  EXPECT_THAT(rendered("\n{{ raise_exception('roles must\nalternate') }}"),
              HasSubstr("render: chat template, line 2: roles must alternate"));
}

TEST(ChatTemplate, errors_name_the_line) {
  EXPECT_THAT(rendered("a\n{% if %}"), HasSubstr("create: chat template, line 2"));
  EXPECT_THAT(rendered("a\n\n{{ nothing.at.all }}"), HasSubstr("render: chat template, line 3"));
  EXPECT_THAT(rendered("\xFF"), HasSubstr("not UTF-8"));
}

TEST(ChatTemplate, deep_nesting_is_an_error) {
  EXPECT_THAT(rendered("{{ " + std::string(6000, '(') + "1" + std::string(6000, ')') + " }}"),
              HasSubstr("recursion"));
  std::string blocks;
  for (int i = 0; i < 5500; ++i) blocks += "{% if 1 %}";
  for (int i = 0; i < 5500; ++i) blocks += "{% endif %}";
  EXPECT_THAT(rendered(blocks), HasSubstr("recursion"));
  EXPECT_THAT(rendered("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"), HasSubstr("recursion"));
}

std::string repeated(const std::string& text, int times) {
  std::string result;
  for (int i = 0; i < times; ++i) result += text;
  return result;
}

TEST(ChatTemplate, long_chains_do_not_overflow_the_stack) {
  EXPECT_EQ(rendered("{{ " + std::string(120'000, '-') + "1 }}"), "1");
  EXPECT_EQ(rendered("{{ " + repeated("not ", 30'000) + "true }}"), "True");
  EXPECT_EQ(rendered("{{ 1" + repeated("+1", 60'000) + " }}"), "60001");
  EXPECT_EQ(rendered("{% if 0 %}" + repeated("{% elif 0 %}", 5'000) + "{% endif %}"), "");
  EXPECT_EQ(rendered("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}"
                     "{% for j in range(9) %}{% set ns.x = [ns.x] %}{% endfor %}{% endfor %}ok"),
            "ok");
}

TEST(ChatTemplate, work_and_output_are_limited) {
  EXPECT_THAT(rendered("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}"
                       "{% endfor %}"),
              HasSubstr("1000000 steps"));
  EXPECT_THAT(rendered("{% for i in range(9999) %}{{ 'abcdefghij' * 10000 }}{% endfor %}"),
              HasSubstr("wrote more than"));
  EXPECT_THAT(rendered(std::string(200'000, 'a')), HasSubstr("more than the 131072 allowed"));
}

}  // namespace
}  // namespace kvasir::text
