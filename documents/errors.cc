#include "documents/errors.h"

#include "absl/strings/str_format.h"
#include "documents/charset.h"

namespace fovea::documents {

std::string NotTextReason(std::string_view bytes, size_t at, uint64_t offset) {
  const auto byte = static_cast<unsigned char>(bytes[at]);
  const uint64_t position = offset + at;
  if (byte == 0) return StrCat("not text: NUL byte at byte offset ", position);
  return absl::StrFormat("not UTF-8: byte 0x%02X at byte offset %d", byte, position);
}

absl::Status NotTextError(std::string_view name, std::string_view bytes, size_t at, uint64_t offset,
                          std::string_view want) {
  const std::string_view mark = offset == 0 ? CharsetOfMark(bytes) : std::string_view();
  std::string advice;
  if (!mark.empty()) {
    advice = StrCat("it is ", mark, ": convert it, for example `iconv -f ", mark.substr(0, 6),
                    " -t UTF-8`");
  } else if (LooksLikeUtf16(bytes)) {
    advice =
        "it seems to be UTF-16 without a byte-order mark: convert it, for example `iconv -f "
        "UTF-16LE -t UTF-8` (or UTF-16BE)";
  } else if (bytes[at] == '\0') {
    advice = StrCat("want ", want);
  } else {
    advice =
        "if it is text in another encoding, convert it, for example `iconv -f ISO-8859-1 -t UTF-8`";
  }
  return absl::InvalidArgumentError(
      StrCat(name, ": ", NotTextReason(bytes, at, offset), ": ", advice));
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
