// What a file is by its first bytes, where it is no text: a name for people, and what to do.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::documents {

// What KindOf looks at.
inline constexpr size_t kKindBytes = size_t{8} << 10;

// Kinds that have, or may have, a reader.
inline constexpr std::string_view kPdfKind = "PDF document";
inline constexpr std::string_view kZipKind = "ZIP archive";  // DOCX, ODT and EPUB are
// What else ZIP archives are.
inline constexpr std::string_view kSpreadsheetKind = "spreadsheet";
inline constexpr std::string_view kPresentationKind = "presentation";
inline constexpr std::string_view kDrawingKind = "OpenDocument file without text";

// Kinds of files that have nothing to store.
inline constexpr std::string_view kEmptyKind = "empty file";
inline constexpr std::string_view kEmptyHtmlKind = "HTML page without text";
inline constexpr std::string_view kEmptyPdfKind = "PDF without text";
inline constexpr std::string_view kEmptyDocxKind = "DOCX without text";
inline constexpr std::string_view kEmptyOdtKind = "ODT without text";
inline constexpr std::string_view kEmptyEpubKind = "EPUB without text";

// "PNG image", "ZIP archive", …; empty for text, whatever its encoding, and for what begins like
// nothing that is known. `head` is the file's first kKindBytes, or all of it.
std::string_view KindOf(std::string_view head);

// Whether it begins as text that is read: UTF-8, or with a mark or a declaration of its encoding.
bool IsText(std::string_view head);

// Whether `head`, which is no UTF-8, may still be text: of an old encoding, without control
// characters.
bool MayBeOtherText(std::string_view head);

// InvalidArgument: the file has no text of its own, and what to do about that.
absl::Status NoTextError(std::string_view name, std::string_view kind);

// An error about a file in which there is nothing to store, whatever happens: who was given a
// folder passes over such files, and says so. The kind says what they are, "empty file" among it.
void SetKind(absl::Status* status, std::string_view kind);
// Empty for any other error.
std::string KindOfError(const absl::Status& status);

}  // namespace fovea::documents
