#include "texts/harvest.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>
#include <vector>

namespace fovea::texts {
namespace {

bool IsLetter(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; }
bool IsCapital(char c) { return std::isupper(static_cast<unsigned char>(c)) != 0; }

std::string Lower(std::string_view word) {
  std::string lower(word);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

// Words that belong to sentences and not to what they are about.
bool IsFunctionWord(std::string_view word) {
  static constexpr std::array kWords = {
      "a",     "all",   "an",    "and",   "any",  "are",   "as",    "at",   "be",    "been",
      "but",   "by",    "could", "did",   "do",   "for",   "from",  "had",  "has",   "have",
      "he",    "her",   "him",   "his",   "i",    "if",    "in",    "into", "is",    "it",
      "its",   "may",   "me",    "more",  "most", "much",  "must",  "my",   "no",    "nor",
      "not",   "of",    "on",    "one",   "or",   "other", "our",   "out",  "own",   "same",
      "shall", "she",   "so",    "some",  "such", "than",  "that",  "the",  "their", "them",
      "then",  "there", "these", "they",  "this", "those", "to",    "too",  "two",   "under",
      "up",    "upon",  "very",  "was",   "we",   "were",  "what",  "when", "where", "which",
      "while", "who",   "whom",  "whose", "will", "with",  "would", "yet",  "you",   "your"};
  return std::find(kWords.begin(), kWords.end(), word) != kWords.end();
}

}  // namespace

void WordHarvest::Add(std::string_view text) {
  // The words before, in lower case, while nothing but spaces stood between them.
  std::string before, before_that;
  bool begins_sentence = true;
  size_t i = 0;
  while (i < text.size()) {
    if (!IsLetter(text[i])) {
      const char c = text[i];
      if (c == '.' || c == '!' || c == '?' || c == '"' || c == ':' || c == '\n')
        begins_sentence = true;
      if (c != ' ') before.clear();
      ++i;
      continue;
    }
    size_t end = i;
    while (end < text.size() && IsLetter(text[end])) ++end;
    const std::string_view word = text.substr(i, end - i);
    const std::string lower = Lower(word);
    const char after = end < text.size() ? text[end] : '.';
    if (word.size() >= 3 && !IsFunctionWord(lower)) {
      Counts& counts = counts_[lower];
      if (!IsCapital(word[0])) {
        ++counts.lower;
        const bool after_article = before == "the" || before == "a" || before == "an";
        const bool is_last = after == '.' || after == ',' || after == ';' || after == '?';
        if (after_article && is_last) {
          const bool is_place = before_that == "in" || before_that == "at" ||
                                before_that == "into" || before_that == "from";
          ++(is_place ? counts.place : counts.thing);
        } else if (after_article && after == ' ') {
          ++counts.quality;
        } else if (is_last && !before.empty() && !IsFunctionWord(before)) {
          ++counts.thing;
        }
      } else if (!begins_sentence && word.size() <= 12 && !IsCapital(word[1])) {
        ++counts.name;
      }
    }
    before_that = std::exchange(before, lower);
    begins_sentence = false;
    i = end;
  }
}

void WordHarvest::Finish(FactWords* words) const {
  constexpr size_t kMost = 4000;
  using Found = std::vector<std::pair<int64_t, std::string>>;
  Found names, things, places, qualities;
  for (const auto& [word, counts] : counts_) {
    if (counts.name >= 5 && counts.name > 10 * counts.lower) {
      std::string name = word;
      name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
      names.emplace_back(counts.name, std::move(name));
    } else if (counts.place >= 5 && counts.place >= counts.thing) {
      places.emplace_back(counts.place, word);
    } else if (counts.thing >= 5 && counts.thing >= counts.quality / 2) {
      things.emplace_back(counts.thing, word);
    } else if (counts.quality >= 10 && counts.quality > 4 * counts.thing) {
      qualities.emplace_back(counts.quality, word);
    }
  }
  const auto take = [](Found found, std::vector<std::string>* to) {
    std::sort(found.begin(), found.end(), [](const auto& a, const auto& b) {
      return a.first > b.first || (a.first == b.first && a.second < b.second);
    });
    if (found.size() > kMost) found.resize(kMost);
    for (auto& [count, word] : found) to->push_back(std::move(word));
    std::sort(to->begin(), to->end());
  };
  take(std::move(names), &words->names);
  take(std::move(things), &words->things);
  take(std::move(places), &words->places);
  take(std::move(qualities), &words->qualities);
}

}  // namespace fovea::texts
