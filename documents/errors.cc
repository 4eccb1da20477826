#include "documents/errors.h"

#include "absl/strings/str_format.h"
#include "documents/file_kind.h"

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

absl::Status EmptyError(std::string_view name, std::string_view why) {
  if (why.empty()) {
    absl::Status status = absl::InvalidArgumentError(StrCat(name, ": empty: nothing to store"));
    SetKind(&status, "empty file");
    return status;
  }
  return absl::InvalidArgumentError(StrCat(name, ": empty: nothing to store (", why, ")"));
}

}  // namespace fovea::documents
