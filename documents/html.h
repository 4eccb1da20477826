// HTML pages as readable text.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "documents/input_file.h"
#include "documents/text_document.h"

namespace fovea::documents {

struct HtmlText {
  std::string title;  // of <title>, else of the first <h1>; may be empty
  std::string text;   // without white space at both ends; may be empty
};

// Paragraphs, headings, lists and tables are set apart by an empty line, other block elements by a
// line's end, cells by a tab; entities are decoded; scripts, styles, forms' fields and elements
// that their attributes hide are left out, buttons' labels are not. What is left out of a line, and
// a button, stands between words as a space. White space is collapsed outside of <pre>. `html` is
// valid UTF-8.
// Time grows with the page's size, however its elements nest: those within hundreds of others give
// their text, and lines for blocks. ResourceExhausted when the page's tree outgrows
// limits.max_html_tree_bytes or max_html_parse_seconds of processor time.
absl::StatusOr<HtmlText> ExtractHtml(std::string_view html, const ReadLimits& limits);

// The page of a file, as a document; the file's name becomes the source.
absl::StatusOr<std::unique_ptr<TextDocument>> OpenHtml(InputFile& file, const ReadLimits& limits);

}  // namespace fovea::documents
