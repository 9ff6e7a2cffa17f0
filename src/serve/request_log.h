// One line for each request when it is over: who asked for what, how it ended and what it cost.
// Prompts and answers are never written.
//
// Thread: any. Allocates: freely.
#pragma once

#include <spdlog/fwd.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/exchange.h"

namespace kvasir::serve {

// What a completion cost.
struct AnswerSummary {
  std::string finish;  // of the last answer; or why there was none
  uint32_t answers = 0;
  uint32_t prompt_tokens = 0;  // of the first prompt
  uint32_t tokens_cached = 0;
  uint64_t tokens_generated = 0;  // of all answers
  uint64_t ttft_us = 0;
};

class RequestLog {
 public:
  // To stderr. `format`: text or json. Error: unknown format or level.
  static base::Result<std::unique_ptr<RequestLog>> create(const std::string& format,
                                                          const std::string& level);
  ~RequestLog();

  // `tenant`: its name.
  void write(const http::Request& request, std::string_view tenant, const AnswerSummary& summary);
  // Everything else an operator should know: start, drain, watchdog.
  void info(std::string_view event, std::string_view message);
  void error(std::string_view event, std::string_view message);

 private:
  RequestLog(std::shared_ptr<spdlog::logger> logger, bool json);
  void say(int level, std::string_view event, std::string_view message);

  std::shared_ptr<spdlog::logger> logger_;
  bool json_;
};

}  // namespace kvasir::serve
