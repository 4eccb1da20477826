#include "index/text_query.h"

#include <algorithm>
#include <iterator>
#include <unordered_set>
#include <vector>

#include "index/text_words.h"

namespace fovea::index {
namespace {

// Letters that English contractions leave (what's, they're) are among them.
constexpr std::string_view kStopWords[] = {
    "a",     "about", "am",    "an",    "and",   "any",    "are",    "as",     "at",    "be",
    "been",  "being", "but",   "by",    "can",   "could",  "d",      "did",    "do",    "does",
    "doing", "don",   "for",   "from",  "had",   "has",    "have",   "having", "he",    "her",
    "hers",  "him",   "his",   "how",   "i",     "if",     "in",     "into",   "is",    "it",
    "its",   "ll",    "m",     "me",    "my",    "no",     "nor",    "not",    "of",    "on",
    "or",    "our",   "ours",  "re",    "s",     "she",    "should", "so",     "some",  "such",
    "t",     "than",  "that",  "the",   "their", "theirs", "them",   "then",   "there", "these",
    "they",  "this",  "those", "to",    "too",   "us",     "ve",     "very",   "was",   "we",
    "were",  "what",  "when",  "where", "which", "while",  "who",    "whom",   "whose", "why",
    "will",  "with",  "would", "you",   "your",  "yours"};
static_assert(std::is_sorted(std::begin(kStopWords), std::end(kStopWords)));

// Terms in the order of the question, each once.
std::vector<std::string> Terms(std::string_view question) {
  std::vector<std::string> terms;
  std::unordered_set<std::string> seen;
  const auto add = [&](const std::string& term) {
    if (!term.empty() && seen.insert(term).second) terms.push_back(term);
  };
  std::string previous;  // the character before, where no pair has it yet
  std::string last;      // the character before
  ForEachWord(question, [&](const TextWord& word) {
    const std::string text(word.text);
    if (word.is_character && word.follows) {
      add(last + " " + text);
      previous.clear();
    } else {
      add(previous);
      previous = word.is_character ? text : "";
    }
    if (word.is_character) {
      last = text;
    } else {
      add(text);
    }
  });
  add(previous);
  return terms;
}

}  // namespace

bool IsStopWord(std::string_view word) {
  return std::binary_search(std::begin(kStopWords), std::end(kStopWords), word);
}

std::vector<std::string> QueryTerms(std::string_view question) {
  std::vector<std::string> terms = Terms(question);
  if (!std::all_of(terms.begin(), terms.end(), IsStopWord)) std::erase_if(terms, IsStopWord);
  if (terms.size() > kMaxTerms) terms.resize(kMaxTerms);
  return terms;
}

std::string MakeMatchExpression(std::string_view question) {
  std::string expression;
  for (const std::string& term : QueryTerms(question)) {
    if (!expression.empty()) expression += " OR ";
    // A term holds no quote: quotes separate words (text_words.h).
    expression += '"';
    expression += term;
    expression += '"';
  }
  return expression;
}

}  // namespace fovea::index
