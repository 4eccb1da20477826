// What a document is: its content.
#pragma once

#include <cstdint>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "documents/text_document.h"

namespace fovea::memory {

struct TextIdentity {
  std::string id;           // 32 hex digits of the SHA-256 of the text
  uint64_t size_bytes = 0;  // of the text
};
// Reads the whole text. Errors are those of the document; InvalidArgument for an empty one.
absl::StatusOr<TextIdentity> IdentifyText(documents::TextDocument& document,
                                          const Progress& progress);

}  // namespace fovea::memory
