// The page that people see at the server's address: HTML, CSS and ES modules, which are part of the
// program. The files lie beside this one; cmake/FoveaEmbed.cmake puts them in.
#pragma once

#include <span>
#include <string_view>

#include "serve/http.h"

namespace fovea::serve {

struct PageFile {
  std::string_view name;    // "app.js"
  std::string_view sha256;  // in hexadecimal digits
  std::string_view text;
};

// All of them.
std::span<const PageFile> PageFiles();

// The response to a GET of the file with this name. It may be kept by a browser, which asks each
// time whether it is still the same: `if_none_match` is what that request's header says, and where
// it names the file's state the answer is status 304 without a body. The page may load nothing from
// anywhere else and run nothing but its own modules; text that becomes HTML or code in it is
// refused by the browser (trusted types). Status 404 for a name that is none of them.
HttpResponse PageResponse(std::string_view name, std::string_view if_none_match);

}  // namespace fovea::serve
