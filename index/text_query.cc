#include "index/text_query.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <unordered_set>
#include <vector>

namespace fovea::index {
namespace {

constexpr char32_t kInvalid = 0xffffffff;

// Takes one code point from the front of *text (one byte when it is not valid UTF-8: kInvalid).
char32_t TakeCodePoint(std::string_view* text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>((*text)[i]); };
  const unsigned char first = byte(0);
  size_t length = 1;
  char32_t c = first;
  char32_t smallest = 0;
  if (first >= 0xc2 && first <= 0xdf) {
    length = 2, c = first & 0x1f, smallest = 0x80;
  } else if (first >= 0xe0 && first <= 0xef) {
    length = 3, c = first & 0x0f, smallest = 0x800;
  } else if (first >= 0xf0 && first <= 0xf4) {
    length = 4, c = first & 0x07, smallest = 0x10000;
  } else if (first >= 0x80) {
    c = kInvalid;
  }
  bool valid = c != kInvalid && length <= text->size();
  for (size_t i = 1; valid && i < length; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    c = c << 6 | (byte(i) & 0x3f);
  }
  if (valid && length > 1) valid = c >= smallest && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);
  if (!valid) {
    text->remove_prefix(1);
    return kInvalid;
  }
  text->remove_prefix(length);
  return c;
}

// Scripts without spaces between words (and Hangul, whose words carry long endings).
bool IsCjk(char32_t c) {
  return (c >= 0x3040 && c <= 0x30ff && c != 0x30fb) ||                   // Hiragana, Katakana
         (c >= 0x31f0 && c <= 0x31ff) ||                                  // Katakana extensions
         (c >= 0x3400 && c <= 0x4dbf) || (c >= 0x4e00 && c <= 0x9fff) ||  // Han
         (c >= 0xac00 && c <= 0xd7a3) ||                                  // Hangul
         (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff);  // more Han
}

// What certainly separates words. Other separators may stay in a word: FTS5 splits there itself,
// the parts becoming a phrase.
bool IsSeparator(char32_t c) {
  if (c < 0x80) {
    return !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'));
  }
  return c == kInvalid || (c < 0xc0 && c != 0xaa && c != 0xb5 && c != 0xba) || c == 0xd7 ||
         c == 0xf7 || (c >= 0x2000 && c <= 0x206f) ||  // general punctuation
         (c >= 0x2190 && c <= 0x2bff) ||               // arrows, signs, symbols
         (c >= 0x3000 && c <= 0x303f && c != 0x3005) || c == 0x30fb ||
         (c >= 0xff00 && c <= 0xff0f) || (c >= 0xff1a && c <= 0xff20) ||
         (c >= 0xfe00 && c <= 0xfe0f) || (c >= 0x1f000 && c <= 0x1faff);  // emoji
}

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

bool IsStopWord(std::string_view word) {
  return std::binary_search(std::begin(kStopWords), std::end(kStopWords), word);
}

// Terms in the order of the question, each once; ASCII letters in lower case.
std::vector<std::string> Terms(std::string_view question) {
  std::vector<std::string> terms;
  std::unordered_set<std::string> seen;
  const auto add = [&](const std::string& term) {
    if (!term.empty() && seen.insert(term).second) terms.push_back(term);
  };
  std::string word;
  std::string previous;  // CJK character before this one
  bool paired = false;   // `previous` is part of a pair already
  const auto end_run = [&] {
    if (!paired) add(previous);
    previous.clear();
    paired = false;
  };
  while (!question.empty()) {
    const std::string_view before = question;
    const char32_t c = TakeCodePoint(&question);
    const std::string_view bytes = before.substr(0, before.size() - question.size());
    if (IsCjk(c)) {
      add(word);
      word.clear();
      if (!previous.empty()) {
        add(previous + " " + std::string(bytes));
        paired = true;
      }
      previous = bytes;
      continue;
    }
    end_run();
    if (IsSeparator(c)) {
      add(word);
      word.clear();
    } else if (c >= 'A' && c <= 'Z') {
      word += static_cast<char>(c - 'A' + 'a');
    } else {
      word += bytes;
    }
  }
  end_run();
  add(word);
  return terms;
}

}  // namespace

std::string SpaceOutCjk(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  while (!text.empty()) {
    const std::string_view before = text;
    const char32_t c = TakeCodePoint(&text);
    if (c == kInvalid || c < 0x20) {
      out += ' ';
      continue;
    }
    const bool is_cjk = IsCjk(c);
    if (is_cjk) out += ' ';
    out += before.substr(0, before.size() - text.size());
    if (is_cjk) out += ' ';
  }
  return out;
}

std::string MakeMatchExpression(std::string_view question) {
  const std::vector<std::string> terms = Terms(question);
  const bool only_stop_words = std::all_of(terms.begin(), terms.end(), IsStopWord);
  std::string expression;
  int n_terms = 0;
  for (const std::string& term : terms) {
    if (!only_stop_words && IsStopWord(term)) continue;
    if (++n_terms > kMaxTerms) break;
    if (!expression.empty()) expression += " OR ";
    // A term holds no quote: quotes separate words.
    expression += '"';
    expression += term;
    expression += '"';
  }
  return expression;
}

}  // namespace fovea::index
