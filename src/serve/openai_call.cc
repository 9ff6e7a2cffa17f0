#include "serve/openai_call.h"

#include <chrono>
#include <utility>

namespace kvasir::serve {

namespace json = boost::json;

OpenAiCall::OpenAiCall(Setup setup, const Naming& naming)
    : Call(std::move(setup)),
      naming_(naming),
      created_s_(std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count()) {}

json::object OpenAiCall::envelope(std::string_view object) const {
  return {{"id", std::string(naming_.id_prefix) + id()},
          {"object", object},
          {"created", created_s_},
          {"model", model().id},
          {"system_fingerprint", model().system_fingerprint}};
}

std::string OpenAiCall::choice_event(json::object choice, const json::object& more) const {
  const bool has_usage_event = parameters().stream_options.include_usage;
  const bool is_last =
      choice.contains("finish_reason") && !choice.at("finish_reason").is_null() && all_ended();
  json::object event = envelope(naming_.chunk);
  event["choices"].emplace_array().push_back(std::move(choice));
  event.insert(more.begin(), more.end());
  // With a usage event to come, all others say that they have none.
  if (has_usage_event) event["usage"] = nullptr;
  if (is_last && !has_usage_event) event["timings"] = totals().timings();
  return event_of(event);
}

json::object OpenAiCall::body_of(json::array choices) const {
  json::object body = envelope(naming_.object);
  body["choices"] = std::move(choices);
  body["usage"] = totals().usage();
  body["timings"] = totals().timings();
  return body;
}

std::string OpenAiCall::stream_end() {
  constexpr std::string_view kDone = "data: [DONE]\n\n";
  if (!parameters().stream_options.include_usage) return std::string(kDone);
  json::object event = envelope(naming_.chunk);
  event["choices"].emplace_array();
  event["usage"] = totals().usage();
  event["timings"] = totals().timings();
  return event_of(event).append(kDone);
}

}  // namespace kvasir::serve
