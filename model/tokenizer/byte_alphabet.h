// GPT-2's printable alphabet: the 256 characters that byte-level vocabularies write bytes with
// ("Ġ" for a space, "Ċ" for a newline).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fovea::model {

// `bytes` as a vocabulary writes them.
std::string ToByteAlphabet(std::string_view bytes);
// The reverse; nullopt when `token` has a character that is not in the alphabet.
std::optional<std::string> FromByteAlphabet(std::string_view token);

}  // namespace fovea::model
