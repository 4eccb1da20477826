// Texts in other encodings than UTF-8: which one it is, by a byte-order mark or by what the text
// declares, and its conversion. What neither is marked nor declared is not guessed.
#pragma once

#include <iconv.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::documents {

// A declaration stands in the first kilobytes.
inline constexpr size_t kDeclarationBytes = size_t{8} << 10;

// "UTF-16LE", "UTF-16BE", "UTF-32LE" or "UTF-32BE" when `head` begins with its byte-order mark;
// else empty.
std::string_view CharsetOfMark(std::string_view head);

// Whether every second byte of `bytes` is NUL, or nearly so: UTF-16 without a mark, of a text that
// is mostly ASCII. A guess, for messages alone.
bool LooksLikeUtf16(std::string_view bytes);

// As declared, not looked up; empty when nothing is. <?xml … encoding="…"?>:
std::string_view XmlCharset(std::string_view head);
// <meta charset="…"> or <meta http-equiv="Content-Type" content="…; charset=…">, else as
// XmlCharset.
std::string_view HtmlCharset(std::string_view head);

// What a declaration means to a browser (the Encoding Standard: "latin1" is windows-1252, and what
// calls itself UTF-16 where it was readable as ASCII is UTF-8). False: no such encoding.
struct Charset {
  const char* iconv_name = nullptr;
  bool one_byte = false;  // every byte is a character: nearly any bytes are valid
};
bool FindCharset(std::string_view label, Charset* charset);

// Converts a stream to UTF-8. Not thread-safe.
class Decoder {
 public:
  // Of CharsetOfMark or FindCharset. FailedPrecondition when this system cannot convert it.
  static absl::StatusOr<std::unique_ptr<Decoder>> Create(std::string_view iconv_name);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Appends the text of the next `bytes` to *out; the start of a character at their end waits for
  // the rest. InvalidArgument ("not …: byte 0x… at byte offset …") for what is no text in this
  // encoding, or is cut off at the end.
  absl::Status Decode(std::string_view bytes, bool at_end, std::string* out);
  // The stream starts again.
  void Reset();

 private:
  Decoder(iconv_t converter, std::string_view name) : converter_(converter), name_(name) {}

  iconv_t converter_;
  std::string name_;
  std::string pending_;
  uint64_t offset_ = 0;  // of pending_ in the stream
};

// The text of a page of HTML: as it is when it is UTF-8, else converted from what its mark or its
// declaration says. The result need not be valid UTF-8 when nothing is declared. Errors begin with
// `name`.
absl::StatusOr<std::string> HtmlToUtf8(std::string html, std::string_view name);

}  // namespace fovea::documents
