#include "bench/load_report.h"

#include <gtest/gtest.h>

#include "bench/driver.h"

namespace kvasir::bench {
namespace {

TEST(JainIndex, is_1_for_equals_and_1_by_n_for_a_monopoly) {
  EXPECT_DOUBLE_EQ(jain_index(std::vector{3.0, 3.0, 3.0}), 1.0);
  EXPECT_DOUBLE_EQ(jain_index(std::vector{5.0, 0.0, 0.0, 0.0}), 0.25);
  EXPECT_DOUBLE_EQ(jain_index(std::vector{1.0, 2.0}), 0.9);
  EXPECT_DOUBLE_EQ(jain_index(std::vector{0.0, 0.0}), 1.0);
  EXPECT_DOUBLE_EQ(jain_index({}), 1.0);
}

TEST(FairShare, what_one_does_not_want_goes_to_the_others) {
  EXPECT_DOUBLE_EQ(fair_share({100.0, 100.0}, 60.0), 30.0);
  EXPECT_DOUBLE_EQ(fair_share({1000.0, 10.0, 10.0}, 60.0), 40.0);
  EXPECT_DOUBLE_EQ(fair_share({10.0, 20.0}, 500.0), 20.0);
  EXPECT_DOUBLE_EQ(fair_share({7.0}, 0.0), 0.0);
}

TEST(Percentile, is_the_nearest_rank) {
  std::vector<double> values;
  for (int i = 100; i > 0; --i) values.push_back(i);
  EXPECT_EQ(percentile(values, 50), 50.0);
  EXPECT_EQ(percentile(values, 95), 95.0);
  EXPECT_EQ(percentile(values, 99), 99.0);
  EXPECT_EQ(percentile({4.0}, 1), 4.0);
}

TEST(BoundedSample, keeps_all_up_to_its_bound_and_then_a_fair_part) {
  BoundedSample sample(1000);
  for (int i = 0; i < 1000; ++i) sample.add(i);
  ASSERT_EQ(sample.values().size(), 1000U);
  EXPECT_EQ(sample.values().back(), 999.0);
  for (int i = 1000; i < 100'000; ++i) sample.add(i);
  ASSERT_EQ(sample.values().size(), 1000U);
  EXPECT_NEAR(percentile(sample.values(), 50), 50'000.0, 5'000.0);
}

StreamResult ok_result(uint64_t index, size_t key = 0) {
  StreamResult result;
  result.request = {.index = index, .key = key, .prompt_tokens = 30, .tokens_wanted = 10};
  result.status = 200;
  result.started_us = 1'000'000;
  result.finished_us = 1'500'000;
  result.answer.id = "cmpl-" + std::to_string(index);
  result.answer.first_us = 1'100'000;
  result.answer.gaps_ms = {40.0F, 60.0F};
  return result;
}

StreamResult result_of(Outcome outcome, unsigned status = 200) {
  StreamResult result = ok_result(7);
  result.outcome = outcome;
  result.status = status;
  return result;
}

TEST(LoadReport, adds_up_what_came_of_all_streams) {
  LoadReport report(1);
  report.add(ok_result(1));
  report.add(ok_result(2));
  report.add(result_of(Outcome::kRefused, 429));
  report.add(result_of(Outcome::kUnfinished));
  report.add(result_of(Outcome::kTimeout));
  report.add(result_of(Outcome::kStatus, 503));
  report.add(result_of(Outcome::kStatus, 503));
  boost::json::object line;
  report.write(line, 2.0);
  EXPECT_EQ(line.at("requests"), 7);
  EXPECT_EQ(line.at("ok"), 2);
  EXPECT_EQ(line.at("failed"), 3);
  EXPECT_EQ(line.at("refused_429"), 1);
  EXPECT_EQ(line.at("unfinished"), 1);
  EXPECT_EQ(line.at("failures"), (boost::json::object{{"http_503", 2}, {"timeout", 1}}));
  EXPECT_EQ(line.at("tok_s"), 40.0);
  EXPECT_EQ(line.at("generated_tok_s"), 10.0);
  EXPECT_EQ(line.at("ttft_ms_p50"), 100.0);
  EXPECT_EQ(line.at("itl_ms_p50"), 40.0);
  EXPECT_EQ(line.at("itl_ms_p95"), 60.0);
  EXPECT_EQ(line.at("e2e_ms_p99"), 500.0);
  EXPECT_EQ(report.first_failure(), "request 7: timeout");
  EXPECT_FALSE(line.contains("jain"));
}

TEST(LoadReport, figures_of_nothing_are_null) {
  boost::json::object line;
  LoadReport(1).write(line, 1.0);
  EXPECT_TRUE(line.at("ttft_ms_p50").is_null());
  EXPECT_EQ(line.at("tok_s"), 0.0);
}

TEST(LoadReport, two_streams_with_one_id_have_been_mixed) {
  LoadReport report(1);
  report.add(ok_result(1));
  report.add(ok_result(1));
  EXPECT_EQ(report.failed(), 1U);
  EXPECT_NE(report.first_failure().find("wrong_id"), std::string::npos);
}

TEST(LoadReport, a_tenant_that_got_less_than_its_share_shows) {
  const auto jain = [](int flooder_ok) {
    LoadReport report(2);
    for (int i = 0; i < 100; ++i) {  // the first wants 100 streams, the second 10
      StreamResult result = ok_result(static_cast<uint64_t>(i));
      if (i >= flooder_ok) result.outcome = Outcome::kRefused;
      report.add(result);
    }
    for (int i = 0; i < 10; ++i) {
      StreamResult result = ok_result(1000 + static_cast<uint64_t>(i), 1);
      if (flooder_ok > 90) result.outcome = Outcome::kRefused;
      report.add(result);
    }
    boost::json::object line;
    report.write(line, 1.0);
    return line.at("jain").as_double();
  };
  EXPECT_DOUBLE_EQ(jain(20), 1.0);  // the second has all it wants, the first the rest
  EXPECT_DOUBLE_EQ(jain(100), 0.5);
}

TEST(LoadReport, what_a_left_stream_had_got_counts_as_served) {
  LoadReport report(2);
  StreamResult left = result_of(Outcome::kUnfinished);
  left.answer.pieces = 4;
  report.add(left);
  boost::json::object line;
  report.write_tenant(line, 0, 2.0);
  EXPECT_EQ(line.at("tok_s"), 17.0);
  EXPECT_EQ(line.at("ok"), 0);
}

}  // namespace
}  // namespace kvasir::bench
