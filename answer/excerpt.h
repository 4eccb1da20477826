// The part of a passage that is shown where there is no room for the whole: around what makes it a
// passage for this question.
#pragma once

#include <cstddef>
#include <string_view>

#include "memory/search/attribution.h"

namespace fovea::answer {

inline constexpr size_t kExcerptCharacters = 240;

// Sets passage->excerpt_start and excerpt_end: a part of passage->text, of whole words (of a
// script without spaces between them, of whole graphemes) and of at most kExcerptCharacters, from
// the beginning of a sentence where that is near. A grapheme that the passage's own edge cuts,
// which `around` shows, is no part of it. It is the part where words of `wanted` (a question and
// its answer, or a query) stand together, the rarer in the passage the better, and where the tokens
// are that were attended to most (Passage::peak_start); where neither is, the beginning.
void ChooseExcerpt(std::string_view wanted, const memory::Surroundings& around,
                   memory::Passage* passage);

}  // namespace fovea::answer
