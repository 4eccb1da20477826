// Pages of XHTML, made fit for a parser of HTML.
#pragma once

#include <string>
#include <string_view>

namespace fovea::documents {

// A page that says that it is XML.
bool IsXhtml(std::string_view page);

// To HTML, <title/> and <script/> begin an element that takes in the rest of the page, and CDATA is
// a comment: such elements get an end of their own, CDATA becomes text, processing instructions and
// a document type's declarations go.
std::string XhtmlToHtml(std::string_view page);

}  // namespace fovea::documents
