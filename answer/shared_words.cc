#include "answer/shared_words.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/status.h"
#include "index/text_query.h"
#include "index/text_words.h"

namespace fovea::answer {

bool AreSameWord(std::string_view a, std::string_view b) {
  constexpr size_t kLeastStem = 3;
  constexpr size_t kMaxEnding = 3;
  if (a.size() > b.size()) std::swap(a, b);
  return a == b ||
         (a.size() >= kLeastStem && b.size() - a.size() <= kMaxEnding && b.starts_with(a));
}

double ShareOfWords(std::string_view sentence, std::string_view text) {
  std::vector<std::string> terms = index::QueryTerms(sentence);
  std::erase_if(terms, index::IsStopWord);
  if (terms.empty()) return 0.0;
  std::vector<std::string> words;  // two characters of a script without spaces as a term has them
  std::string last;
  index::ForEachWord(text, [&](const index::TextWord& word) {
    std::string folded(word.text);
    if (word.is_character && word.follows) words.push_back(StrCat(last, " ", folded));
    words.push_back(folded);
    last = std::move(folded);
  });
  const auto n_found = std::count_if(terms.begin(), terms.end(), [&](const std::string& term) {
    return std::any_of(words.begin(), words.end(),
                       [&](const std::string& word) { return AreSameWord(word, term); });
  });
  return static_cast<double>(n_found) / static_cast<double>(terms.size());
}

}  // namespace fovea::answer
