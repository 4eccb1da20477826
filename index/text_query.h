// A question as a MATCH expression of FTS5, which no text can turn into an operator of its query
// language.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fovea::index {

// What is looked for of a question: its words, folded (text_words.h), each once, in their order;
// two characters with a space between them where a script puts none between words. English stop
// words are dropped unless nothing would remain, and at most kMaxTerms are taken.
inline constexpr int kMaxTerms = 256;
std::vector<std::string> QueryTerms(std::string_view question);

// Of a folded word: "the", "who". English has them listed.
bool IsStopWord(std::string_view word);

// QueryTerms, quoted and joined by OR. Empty when the question has no word.
std::string MakeMatchExpression(std::string_view question);

}  // namespace fovea::index
