#include "answer/sentence_marks.h"

#include <algorithm>
#include <iterator>

#include "base/status.h"

namespace fovea::answer {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// Quotes and brackets that may stand behind the end of a sentence.
constexpr std::string_view kClosers[] = {"\"", "'", ")", "]", "*", "”", "’", "»", "“", "」", "』"};

bool BeginsWithCloser(std::string_view text) {
  return std::any_of(std::begin(kClosers), std::end(kClosers),
                     [&](std::string_view closer) { return text.starts_with(closer); });
}

std::string_view WithoutClosers(std::string_view sentence) {
  for (bool is_cut = true; is_cut;) {
    is_cut = false;
    for (const std::string_view closer : kClosers) {
      if (!sentence.ends_with(closer)) continue;
      sentence.remove_suffix(closer.size());
      is_cut = true;
    }
  }
  return sentence;
}

// Whether a point behind `word` is of an abbreviation, and seldom ends a sentence.
bool IsAbbreviation(std::string_view word) {
  constexpr std::string_view kAbbreviations[] = {"Mr", "Mrs", "Ms", "Dr",  "St",  "Prof", "vs",
                                                 "No", "Nr",  "cf", "e.g", "i.e", "z.B",  "bzw"};
  const bool is_letter = word.size() == 1 && word[0] >= 'A' && word[0] <= 'Z' && word[0] != 'I';
  return is_letter || std::find(std::begin(kAbbreviations), std::end(kAbbreviations), word) !=
                          std::end(kAbbreviations);
}

// Whether what came so far, with white space behind it, is a whole sentence.
bool IsWhole(std::string_view sentence) {
  sentence = WithoutClosers(sentence);
  constexpr std::string_view kEnds[] = {"!", "?", "…", "。", "！", "？"};
  if (std::any_of(std::begin(kEnds), std::end(kEnds),
                  [&](std::string_view end) { return sentence.ends_with(end); })) {
    return true;
  }
  if (!sentence.ends_with('.')) return false;
  sentence.remove_suffix(1);
  // The number of a list's item.
  if (std::all_of(sentence.begin(), sentence.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return false;
  }
  return !IsAbbreviation(sentence.substr(sentence.find_last_of(" \n\t\r(") + 1));
}

// A sentence of these scripts ends without white space.
bool EndsWithoutSpace(std::string_view sentence) {
  constexpr std::string_view kEnds[] = {"。", "！", "？"};
  return std::any_of(std::begin(kEnds), std::end(kEnds),
                     [&](std::string_view end) { return WithoutClosers(sentence).ends_with(end); });
}

}  // namespace

bool SentenceMarks::Push(std::string_view piece) {
  for (size_t i = 0; i < piece.size(); ++i) {
    const char c = piece[i];
    if (IsSpace(c)) {
      spaces_ += c;
      continue;
    }
    const bool ends = spaces_.empty()
                          ? EndsWithoutSpace(sentence_) && !BeginsWithCloser(piece.substr(i))
                          : IsWhole(sentence_) || spaces_.find('\n') != std::string::npos;
    if (ends) EndSentence();
    if (!sentence_.empty()) sentence_ += spaces_;
    text_ += spaces_;
    spaces_.clear();
    sentence_ += c;
    text_ += c;
  }
  return Send();
}

void SentenceMarks::Finish() {
  EndSentence();
  text_ += spaces_;
  spaces_.clear();
  Send();
}

void SentenceMarks::EndSentence() {
  const int source = sentence_.empty() ? 0 : source_of_(sentence_);
  sentence_.clear();
  if (source == 0) return;
  text_ += ' ';
  const size_t start = text_.size();
  text_ += StrCat("[", source, "]");
  marks_.push_back({.start = start, .end = text_.size(), .source = source});
}

bool SentenceMarks::Send() {
  if (n_sent_ == text_.size()) return true;
  const std::string_view piece = std::string_view(text_).substr(n_sent_);
  n_sent_ = text_.size();
  return stream_ == nullptr || stream_(piece);
}

}  // namespace fovea::answer
