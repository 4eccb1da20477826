// UTF-8 as documents need it: found valid piece by piece, cut between characters, and names and
// messages made printable.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace fovea::documents {

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

struct Utf8Scan {
  size_t valid_bytes = 0;   // the longest prefix of whole characters; a NUL byte ends it
  bool incomplete = false;  // what follows it is the start of a character that was cut off
};

// Well-formed UTF-8 as in the Unicode standard's table 3-7: no overlong forms, no surrogates,
// nothing above U+10FFFF.
Utf8Scan ScanUtf8(std::string_view bytes);

// The longest prefix of `text` (valid UTF-8) of at most `max_bytes` that ends between characters.
std::string_view Utf8Prefix(std::string_view text, size_t max_bytes);

// `text` on one line: runs of white space and control characters become one space, those at both
// ends go, invalid bytes become U+FFFD, and at most `max_bytes` stay. For titles and messages.
std::string OneLine(std::string_view text, size_t max_bytes);

// True if nothing but ASCII white space, no-break spaces and byte-order marks is in `text`.
bool IsBlank(std::string_view text);

}  // namespace fovea::documents
