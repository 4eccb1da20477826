// Documents that are zip archives: DOCX, ODT and EPUB, told apart by what is in them.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/zip_archive.h"
#include "documents/input_file.h"
#include "documents/text_document.h"
#include "documents/text_receiver.h"

namespace fovea::documents {

// Text and title go to `receiver`. *kind is what an archive is that is none of the three, for
// NoTextError; then nothing was given. *empty_kind is what one of the three is if no text was
// given, for EmptyError.
absl::Status ReadZipDocument(const ZipArchive& archive, const ReadLimits& limits,
                             TextReceiver& receiver, std::string* kind,
                             std::string_view* empty_kind);

// The same in a process of its own. `is_named`: by its name the file is one of the three, so that a
// damaged archive is an error of its own (else it is a ZIP archive like others).
absl::StatusOr<std::unique_ptr<TextDocument>> OpenZipDocument(std::unique_ptr<InputFile> file,
                                                              bool is_named,
                                                              const ReadLimits& limits);

}  // namespace fovea::documents
