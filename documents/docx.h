// Word documents (DOCX, OOXML's WordprocessingML).
#pragma once

#include <string>

#include "base/status.h"
#include "base/zip_archive.h"
#include "documents/text_document.h"
#include "documents/text_receiver.h"

namespace fovea::documents {

// The part with the document's text; empty: the archive is no Word document.
std::string DocxMainPart(const ZipArchive& archive);

// Paragraphs, headings, lists, tables, text boxes, foot- and endnotes, as a reader sees them:
// without deleted text, comments, headers and footers. The title is that of the properties, else
// the first paragraph if it has the style Title. DataLoss: a damaged document.
absl::Status ReadDocx(const ZipArchive& archive, const ReadLimits& limits, TextReceiver& receiver);

}  // namespace fovea::documents
