// What a tokenizer needs to know of UTF-8: where characters begin and end in bytes that may be
// anything. It decodes no code points.
#pragma once

#include <cstddef>
#include <string_view>

namespace fovea::model {

enum class Utf8Status {
  kValid,       // a whole character
  kIncomplete,  // more bytes could make it a character
  kInvalid,     // no character begins like this
};

struct Utf8Step {
  Utf8Status status = Utf8Status::kIncomplete;
  // Of the character; of the incomplete bytes; of the bytes that one U+FFFD stands for (the
  // "maximal subpart" of Unicode 3.9), at least 1.
  size_t size_bytes = 0;
};

// The first character of `text`; kIncomplete and 0 when it is empty. As in Unicode's table 3-7:
// no surrogates, no overlong forms, nothing beyond U+10FFFF.
Utf8Step NextUtf8(std::string_view text);

// The size of the longest prefix of whole characters.
size_t ValidUtf8Prefix(std::string_view text);

// True for the bytes 80 … BF, which continue a character.
inline bool IsUtf8Continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0u) == 0x80u;
}

}  // namespace fovea::model
