// Marks in the text of an answer, while it comes: "[2]" behind each sentence that source 2 stands
// behind. What a sentence is is known here, what stands behind it is not (sentence_sources.h).
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "answer/request.h"

namespace fovea::answer {

// Not thread-safe.
class SentenceMarks {
 public:
  // The number of a sentence's source, from 1; 0: none. Called at the end of each sentence.
  using SourceOf = std::function<int(std::string_view sentence)>;
  // `stream` (which may be null) gets the text with its marks, and outlives this.
  SentenceMarks(SourceOf source_of, const StreamCallback& stream)
      : source_of_(std::move(source_of)), stream_(stream) {}

  // Takes the next piece of the text. White space waits for what follows it, since a mark comes
  // before it. False: the receiver wants no more.
  bool Push(std::string_view piece);
  // Nothing follows.
  void Finish();

  // With the marks: all that went to `stream`.
  std::string TakeText() { return std::move(text_); }
  std::vector<SourceMark> TakeMarks() { return std::move(marks_); }

 private:
  void EndSentence();
  bool Send();

  SourceOf source_of_;
  const StreamCallback& stream_;
  std::string sentence_;  // since the last one's end, without white space at both ends
  std::string spaces_;    // behind it
  std::string text_;
  size_t n_sent_ = 0;  // bytes of text_ that the receiver has
  std::vector<SourceMark> marks_;
};

}  // namespace fovea::answer
