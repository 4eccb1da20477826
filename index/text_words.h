// From any text to the words of the text index: one function for passages and questions, so that a
// word is found in whatever Unicode form either side has it.
//
// Text is folded first: compatibility forms become plain ones and composed (NFKC: ligatures, full
// width, NFD Korean and Vietnamese), letters lower case, what is not seen (soft hyphens, joiners,
// variation selectors) and the points of Hebrew and Arabic go. FTS5 itself drops the diacritics of
// Latin letters and stems. Scripts that put no spaces between words, and Hangul, whose words carry
// long endings, are cut into characters, each with its marks.
#pragma once

#include <string>
#include <string_view>

#include "absl/functional/function_ref.h"

namespace fovea::index {

// Increased when words come out differently: an index made by another version is made again.
inline constexpr int kWordsVersion = 2;

// A word, or a character of a script without spaces.
struct TextWord {
  std::string_view text;  // folded; valid during the call only
  bool is_character = false;
  bool follows = false;  // a character right after another one, nothing between them
};

// Calls `visit` for each word of `text`, in order. Bytes that are not UTF-8 separate words, and so
// does everything that is neither letter, mark, number nor of a private use area.
void ForEachWord(std::string_view text, absl::FunctionRef<void(const TextWord&)> visit);

// The words of `text`, a space between each two: what FTS5 is given of a passage.
std::string PassageWords(std::string_view text);

}  // namespace fovea::index
