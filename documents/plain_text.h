// Plain text and Markdown, streamed from a file of any size.
#pragma once

#include <memory>

#include "documents/input_file.h"
#include "documents/text_document.h"

namespace fovea::documents {

enum class TextKind { kPlain, kMarkdown };

// Text is UTF-8, or UTF-16 or UTF-32 with a byte-order mark, or XML in the encoding that it
// declares. Checks the file's first kilobytes (that they are text, and not blank to the end) and
// takes its title from them; `title` stays empty when they hold none. The file's name becomes the
// source.
absl::StatusOr<std::unique_ptr<TextDocument>> OpenPlainText(std::unique_ptr<InputFile> file,
                                                            TextKind kind);

}  // namespace fovea::documents
