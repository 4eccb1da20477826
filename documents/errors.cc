#include "documents/errors.h"

#include "absl/strings/str_format.h"

namespace fovea::documents {

absl::Status NotTextError(std::string_view name, std::string_view bytes, size_t at,
                          uint64_t offset) {
  const auto byte = static_cast<unsigned char>(bytes[at]);
  const uint64_t position = offset + at;
  if (byte == 0) {
    return absl::InvalidArgumentError(
        StrCat(name, ": not text: NUL byte at byte offset ", position,
               ": want UTF-8 text, Markdown, HTML, JSONL, PDF, DOCX, ODT or EPUB"));
  }
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: not UTF-8: byte 0x%02X at byte offset %d: if it is text in another encoding, convert "
      "it, for example `iconv -f ISO-8859-1 -t UTF-8`",
      name, byte, position));
}

absl::Status EmptyError(std::string_view name, std::string_view why, std::string_view kind) {
  std::string reason(kind == kEmptyKind ? "" : kind);
  if (!why.empty()) reason += StrCat(reason.empty() ? "" : ": ", why);
  if (!reason.empty()) reason = StrCat(" (", reason, ")");
  absl::Status status =
      absl::InvalidArgumentError(StrCat(name, ": empty: nothing to store", reason));
  SetKind(&status, kind);
  return status;
}

}  // namespace fovea::documents
