// The errors that every reader of documents words alike.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "documents/file_kind.h"

namespace fovea::documents {

// What NotTextError wants of a file.
inline constexpr std::string_view kReadFormats =
    "UTF-8 text, Markdown, HTML, JSONL, PDF, DOCX, ODT or EPUB";

// `bytes` stop being text at `at`; they begin at byte `offset` of what `name` names.
absl::Status NotTextError(std::string_view name, std::string_view bytes, size_t at, uint64_t offset,
                          std::string_view want = kReadFormats);
// Its beginning: "not UTF-8: byte 0xE9 at byte offset 3", "not text: NUL byte at …".
std::string NotTextReason(std::string_view bytes, size_t at, uint64_t offset);

// The error about a file of this kind (file_kind.h), which a folder may hold without harm. `why`:
// more than the kind says; may be empty.
absl::Status EmptyError(std::string_view name, std::string_view why,
                        std::string_view kind = kEmptyKind);

}  // namespace fovea::documents
