// JSONL: one record a line, each a document of its own.
#pragma once

#include "documents/input_file.h"
#include "documents/text_document.h"

namespace fovea::documents {

// Streams the file line by line and gives each record to `visit` in order. A record is an object
// with `text` (a string) and, optionally, `title`, `collection` (strings) and `id` (a string or an
// integer); other fields are passed over. A line that is no record, is longer than
// limits.max_jsonl_line_bytes, or has no text is a failed document; blank lines are passed over.
// Of a surrogate without the other half U+FFFD is in a text and in a title, and a warning says so;
// in an id or a collection it is an error. Returns the first error of `visit`.
absl::Status ReadJsonl(InputFile& file, const ReadLimits& limits, Visitor visit);

}  // namespace fovea::documents
