// From any text to what FTS5 takes: passages with East Asian runs split into characters (FTS5's
// unicode61 would take a whole sentence for one word), and questions as a MATCH expression that no
// text can turn into an operator of the query language.
#pragma once

#include <string>
#include <string_view>

namespace fovea::index {

// `text` with spaces around Han, Kana and Hangul characters; invalid UTF-8 and control characters
// become spaces.
std::string SpaceOutCjk(std::string_view text);

// The words of `question`, quoted and joined by OR; East Asian runs as phrases of two characters.
// English stop words are dropped unless nothing would remain; each word counts once and at most
// kMaxTerms are taken. Empty when the question has no word.
inline constexpr int kMaxTerms = 256;
std::string MakeMatchExpression(std::string_view question);

}  // namespace fovea::index
