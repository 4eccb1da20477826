// OpenDocument texts (ODT).
#pragma once

#include "base/status.h"
#include "base/zip_archive.h"
#include "documents/text_document.h"
#include "documents/text_receiver.h"

namespace fovea::documents {

// Paragraphs, headings, lists, tables, text boxes and notes, without deleted text and comments. The
// title is that of the properties. DataLoss: a damaged document; InvalidArgument: an encrypted one.
absl::Status ReadOdt(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver);

}  // namespace fovea::documents
