#include "serve/request_log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <boost/json.hpp>
#include <chrono>
#include <optional>

namespace kvasir::serve {
namespace {

std::optional<spdlog::level::level_enum> parse_level(const std::string& name) {
  if (name == "debug") return spdlog::level::debug;
  if (name == "info") return spdlog::level::info;
  if (name == "warning") return spdlog::level::warn;
  if (name == "error") return spdlog::level::err;
  return std::nullopt;
}

// RFC 3339, UTC.
std::string now_text() {
  const auto now = std::chrono::system_clock::now();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch());
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(now)), ms.count() % 1000);
}

}  // namespace

base::Result<std::unique_ptr<RequestLog>> RequestLog::create(const std::string& format,
                                                             const std::string& level) {
  if (format != "text" && format != "json") {
    return base::bad_input(fmt::format("--log-format {}: use text or json", format));
  }
  const auto parsed = parse_level(level);
  if (!parsed) {
    return base::bad_input(fmt::format("--log-level {}: use debug, info, warning or error", level));
  }
  auto logger =
      std::make_shared<spdlog::logger>("kvasir", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  const bool json = format == "json";
  logger->set_pattern(json ? "%v" : "%Y-%m-%d %H:%M:%S.%e %l %v");
  logger->set_level(*parsed);
  return std::unique_ptr<RequestLog>(new RequestLog(std::move(logger), json));
}

RequestLog::RequestLog(std::shared_ptr<spdlog::logger> logger, bool json)
    : logger_(std::move(logger)), json_(json) {}

RequestLog::~RequestLog() = default;

void RequestLog::write(const http::Request& request, std::string_view tenant,
                       const AnswerSummary& summary) {
  if (!logger_->should_log(spdlog::level::info)) return;
  const double ttft_ms = static_cast<double>(summary.ttft_us) / 1e3;
  if (json_) {
    logger_->info(
        boost::json::serialize(boost::json::object{{"time", now_text()},
                                                   {"level", "info"},
                                                   {"event", "request"},
                                                   {"request_id", request.id},
                                                   {"path", request.head.path},
                                                   {"tenant", tenant},
                                                   {"finish", summary.finish},
                                                   {"answers", summary.answers},
                                                   {"prompt_tokens", summary.prompt_tokens},
                                                   {"tokens_cached", summary.tokens_cached},
                                                   {"tokens_generated", summary.tokens_generated},
                                                   {"ttft_ms", ttft_ms}}));
    return;
  }
  logger_->info("{} {} tenant {}: {}, {} prompt tokens ({} cached), {} generated, ttft {:.1f} ms",
                request.id, request.head.path, tenant, summary.finish, summary.prompt_tokens,
                summary.tokens_cached, summary.tokens_generated, ttft_ms);
}

void RequestLog::info(std::string_view event, std::string_view message) {
  say(spdlog::level::info, event, message);
}

void RequestLog::error(std::string_view event, std::string_view message) {
  say(spdlog::level::err, event, message);
}

void RequestLog::say(int level, std::string_view event, std::string_view message) {
  const auto severity = static_cast<spdlog::level::level_enum>(level);
  if (!json_) {
    logger_->log(severity, "{}: {}", event, message);
    return;
  }
  logger_->log(severity, "{}",
               boost::json::serialize(
                   boost::json::object{{"time", now_text()},
                                       {"level", severity == spdlog::level::err ? "error" : "info"},
                                       {"event", event},
                                       {"message", message}}));
}

}  // namespace kvasir::serve
