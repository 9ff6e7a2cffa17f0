// Bytes on their way to a client: what is being sent, and what has been queued since. The queue is
// sent as one piece when its turn comes.
//
// Thread: one owner. Allocates: the bytes; gives large buffers back once they are sent.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/check.h"

namespace kvasir::http {

class Outbox {
 public:
  // Append here what is to be sent.
  std::string& queue() { return queued_; }

  bool empty() const { return bytes() == 0; }
  size_t bytes() const { return sending_.size() - sent_ + queued_.size(); }

  // What to send next; stays where it is until all of it is sent().
  std::string_view front() {
    if (sending_.empty()) sending_.swap(queued_);
    return std::string_view(sending_).substr(sent_);
  }
  void sent(size_t bytes) {
    CHECK(bytes <= sending_.size() - sent_);
    sent_ += bytes;
    if (sent_ < sending_.size()) return;
    sent_ = 0;
    sending_.clear();
    if (sending_.capacity() > kKeptBytes) sending_.shrink_to_fit();
  }

 private:
  static constexpr size_t kKeptBytes = 4 << 10;  // of a buffer that is empty

  std::string sending_;
  size_t sent_ = 0;  // bytes of sending_
  std::string queued_;
};

}  // namespace kvasir::http
