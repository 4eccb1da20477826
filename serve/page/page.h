// The page that people see at the server's address: one file, which is part of the program.
#pragma once

#include <string_view>

namespace fovea::serve {

std::string_view PageHtml();

}  // namespace fovea::serve
