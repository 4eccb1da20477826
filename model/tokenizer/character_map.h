// SentencePiece's precompiled character map, checked before the library reads it without looking.
#pragma once

#include <string_view>

#include "base/status.h"

namespace fovea::model {

// InvalidArgument unless every lookup in `map` stays within it and finds as few replacements as the
// library has room for. The format: the size of a trie in bytes (u32), the trie (a double array of
// Darts-clone, u32 each), and the replacements, each with a NUL behind it.
absl::Status CheckCharacterMap(std::string_view map);

}  // namespace fovea::model
