// What OpenAI's two completion endpoints have in common.
// Thread: one at a time. Allocates: every call.
#pragma once

#include <string>
#include <string_view>

#include "serve/call.h"

namespace kvasir::serve {

class OpenAiCall : public Call {
 protected:
  // How an endpoint names its answers.
  struct Naming {
    std::string_view id_prefix;  // "chatcmpl-"
    std::string_view object;     // "chat.completion"
    std::string_view chunk;      // the same for a piece of a stream
  };
  OpenAiCall(Setup setup, const Naming& naming);

  // An event with one entry of "choices". `more` stands beside them.
  std::string choice_event(boost::json::object choice, const boost::json::object& more = {}) const;
  boost::json::object body_of(boost::json::array choices) const;

 private:
  std::string stream_end() override;
  boost::json::object envelope(std::string_view object) const;

  Naming naming_;
  int64_t created_s_;
};

}  // namespace kvasir::serve
