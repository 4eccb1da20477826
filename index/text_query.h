// A question as a MATCH expression of FTS5, which no text can turn into an operator of its query
// language.
#pragma once

#include <string>
#include <string_view>

namespace fovea::index {

// The words of `question`, quoted and joined by OR; runs of a script without spaces between words
// as phrases of two characters (text_words.h).// English stop words are dropped unless nothing
// would remain; each word counts once and at most kMaxTerms are taken. Empty when the question has
// no word.
inline constexpr int kMaxTerms = 256;
std::string MakeMatchExpression(std::string_view question);

}  // namespace fovea::index
