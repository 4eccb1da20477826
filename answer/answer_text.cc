#include "answer/answer_text.h"

#include <algorithm>
#include <cstddef>

namespace fovea::answer {
namespace {

// How many bytes at the end of `text` are the beginning of `stop`, and not all of it.
size_t BeginningAtEnd(std::string_view text, std::string_view stop) {
  for (size_t n = std::min(text.size(), stop.size() - 1); n > 0; --n) {
    if (text.substr(text.size() - n) == stop.substr(0, n)) return n;
  }
  return 0;
}

}  // namespace

void AnswerText::Push(std::string_view piece) {
  if (skipping_) {
    const size_t begin = piece.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos) return;
    piece.remove_prefix(begin);
    skipping_ = false;
  }
  if (piece.empty() || at_stop_ || refused_) return;
  held_ += piece;
  size_t end = std::string::npos;
  for (const std::string& stop : stop_) end = std::min(end, held_.find(stop));
  if (end != std::string::npos) {
    at_stop_ = true;
    held_.resize(end);
    Release(end);
    return;
  }
  size_t n_waiting = 0;
  for (const std::string& stop : stop_)
    n_waiting = std::max(n_waiting, BeginningAtEnd(held_, stop));
  // A stop string may begin within a character; what is passed on may not end in one.
  size_t n_ready = held_.size() - n_waiting;
  while (n_ready > 0 && n_ready < held_.size() &&
         (static_cast<unsigned char>(held_[n_ready]) & 0xC0) == 0x80) {
    --n_ready;
  }
  Release(n_ready);
}

void AnswerText::Finish() { Release(held_.size()); }

void AnswerText::Release(size_t n_bytes) {
  if (n_bytes == 0 || refused_) return;
  const std::string piece = held_.substr(0, n_bytes);
  held_.erase(0, n_bytes);
  text_ += piece;
  refused_ = stream_ != nullptr && !stream_(piece);
}

}  // namespace fovea::answer
