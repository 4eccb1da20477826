// Where text can be cut for people: between what they see as characters (extended grapheme
// clusters; Unicode Standard Annex #29), a letter with its accents or a family of emoji, say.
#pragma once

#include <cstddef>
#include <string_view>

namespace fovea::documents {

// The first one of `text`, cut off after `max_characters` (at least 1) code points: any number of
// marks may follow a letter. Bytes that are not UTF-8 are each one of their own. Empty: `text` is.
std::string_view FirstGrapheme(std::string_view text, size_t max_characters);

}  // namespace fovea::documents
