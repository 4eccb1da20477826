// Electronic books (EPUB 2 and 3).
#pragma once

#include "base/status.h"
#include "base/zip_archive.h"
#include "documents/text_document.h"
#include "documents/text_receiver.h"

namespace fovea::documents {

// The pages in reading order, each as ExtractHtml gives it, set apart by an empty line. The title
// is the book's. Pages that are not in the archive, cannot be read, or hold no text, are left out;
// a warning says how many are missing or unreadable, and why. DataLoss: a damaged book;
// InvalidArgument: an encrypted one.
absl::Status ReadEpub(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver);

}  // namespace fovea::documents
