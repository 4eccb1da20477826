// The text of an answer while it is made: leaves out what does not belong to it, ends it at a stop
// string, and passes it on.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "answer/request.h"

namespace fovea::answer {

// Not thread-safe.
class AnswerText {
 public:
  // `skip_leading_space`: white space before the answer is no part of it. `stop`, of texts that are
  // not empty, and `stream` (which may be null) outlive this.
  AnswerText(bool skip_leading_space, std::span<const std::string> stop,
             const StreamCallback& stream)
      : skipping_(skip_leading_space), stop_(stop), stream_(stream) {}

  // Takes the next piece. What may be the beginning of a stop string waits for what follows.
  void Push(std::string_view piece);
  // Nothing follows: passes on what waits.
  void Finish();

  bool at_stop() const { return at_stop_; }     // a stop string has come: the text ends before it
  bool is_refused() const { return refused_; }  // the receiver wants no more
  std::string Take() { return std::move(text_); }

 private:
  void Release(size_t n_bytes);

  bool skipping_;
  std::span<const std::string> stop_;
  const StreamCallback& stream_;
  std::string text_;  // that was passed on
  std::string held_;  // that may be the beginning of a stop string
  bool at_stop_ = false;
  bool refused_ = false;
};

}  // namespace fovea::answer
