// Which words two texts have in common, as the text index sees words (index/text_words.h).
#pragma once

#include <string_view>

namespace fovea::answer {

// Of folded words: whether the text index would find one for the other: equal, or with another
// ending
// ("otter", "otters"), about as its stemmer makes of them.
bool AreSameWord(std::string_view a, std::string_view b);

// The share, from 0 to 1, of the words of `sentence` that `text` has. Each word counts once;
// English stop words do not, and a sentence of nothing else has 0.
double ShareOfWords(std::string_view sentence, std::string_view text);

}  // namespace fovea::answer
