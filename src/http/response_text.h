// Answers as HTTP/1.1 spells them.
//
// Thread: any. Allocates: what it appends.
#pragma once

#include <string>
#include <string_view>

#include "http/exchange.h"
#include "http/request_head.h"

namespace kvasir::http {

// What the form of an answer depends on, besides the answer.
struct AnswerFrame {
  std::string id;          // of the request
  bool head_only = false;  // it was HEAD
  bool http_1_0 = false;
  bool keeps_alive = false;
};

void append_answer(std::string& out, const Response& response, const AnswerFrame& frame);

void append_stream_head(std::string& out, std::string_view content_type, const AnswerFrame& frame);
// Nothing for an empty piece: an empty chunk would end the stream.
void append_piece(std::string& out, std::string_view piece, const AnswerFrame& frame);
void append_stream_end(std::string& out, const AnswerFrame& frame);

// OpenAI's error object.
Response refusal_response(const Refusal& refusal);

}  // namespace kvasir::http
