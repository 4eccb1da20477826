// What is wrong with text that is no JSON, in the words of all errors about it.
#pragma once

#include <string>
#include <string_view>

namespace fovea::documents {

// "\ud83d" without the other half.
inline constexpr std::string_view kHalfOfPair =
    "half of a surrogate pair (\\uD800 to \\uDFFF alone), which is no character";

// Out of what the library that reads JSON says ("[json.exception.parse_error.101] parse error at
// line 1, column 5: syntax error … - invalid literal; last read: 'tru}'"), without its own names
// and places: "syntax error … - invalid literal; last read: 'tru}'". What was read last is shown as
// PrintableName shows it, but for backslashes, which stay, and only its end where it is long.
std::string JsonFault(std::string_view what);

}  // namespace fovea::documents
