// The text of PDF files, page by page.
#pragma once

#include <filesystem>
#include <memory>

#include "documents/input_file.h"
#include "documents/text_document.h"

namespace fovea::documents {

// Pages in reading order, set apart by an empty line; pages without text, and those that cannot be
// read, leave nothing but a warning that says how many they are. The title is the file's own, when
// it has one. `path` is what `file` was opened from. DataLoss: a broken file, or none that is a
// PDF; FailedPrecondition: its text is in encodings whose data (poppler-data) is not installed.
absl::StatusOr<std::unique_ptr<TextDocument>> OpenPdf(const std::filesystem::path& path,
                                                      std::unique_ptr<InputFile> file,
                                                      const ReadLimits& limits);

}  // namespace fovea::documents
