#include "documents/file_kind.h"

#include <algorithm>
#include <optional>

#include "absl/strings/cord.h"
#include "documents/charset.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

using namespace std::string_view_literals;

constexpr char kKindPayload[] = "fovea/file-kind";

constexpr std::string_view kUnpack = "unpack it first";
constexpr std::string_view kRecognise = "what is written in pictures needs text recognition (OCR)";
constexpr std::string_view kTranscribe = "what is said in it needs a transcript";
constexpr std::string_view kSave = "save it as text or PDF first";
constexpr std::string_view kFetch = "fetch the file that it stands for (`git lfs pull`)";

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

void SkipSpaces(std::string_view* text, std::string_view spaces) {
  text->remove_prefix(std::min(text->find_first_not_of(spaces), text->size()));
}

// "1.4", a line's end, and objects: a text may begin with what a PDF begins with.
bool GoesOnAsPdf(std::string_view rest, bool is_text) {
  if (!is_text) return true;
  if (rest.size() < 4 || !IsDigit(rest[0]) || rest[1] != '.' || !IsDigit(rest[2])) return false;
  rest.remove_prefix(3);
  SkipSpaces(&rest, " \t");
  return (rest.starts_with('\n') || rest.starts_with('\r')) && rest.find(" obj") != rest.npos;
}

// A version and a control word, or a group.
bool GoesOnAsRtf(std::string_view rest, bool) {
  if (rest.empty() || !IsDigit(rest[0])) return false;
  SkipSpaces(&rest, "0123456789");
  SkipSpaces(&rest, " \r\n");
  if (rest.starts_with('{')) rest.remove_prefix(1);
  return rest.size() > 1 && rest[0] == '\\' &&
         (rest[1] == '*' || (rest[1] >= 'a' && rest[1] <= 'z'));
}

bool GoesOnAsLfsPointer(std::string_view rest, bool) {
  return rest.find("\noid sha256:") != rest.npos;
}

struct Signature {
  size_t offset;
  std::string_view bytes;
  std::string_view kind;
  std::string_view advice = {};  // what to do; empty: which formats are read
  // What follows the bytes, when they do not tell enough.
  bool (*goes_on)(std::string_view rest, bool is_text) = nullptr;
};

// Of things that are text themselves, too: they are compared with all files.
constexpr Signature kTextSignatures[] = {
    {0, "%PDF-", kPdfKind, {}, &GoesOnAsPdf},
    {0, "{\\rtf", "RTF document", kSave, &GoesOnAsRtf},
    {0, "version https://git-lfs.github.com/spec/v", "Git LFS pointer", kFetch,
     &GoesOnAsLfsPointer},
};

// Short ones are safe: nothing here is compared with a text.
constexpr Signature kSignatures[] = {
    {0, "\x89PNG\r\n\x1A\n", "PNG image", kRecognise},
    {0, "\xFF\xD8\xFF", "JPEG image", kRecognise},
    {0, "GIF8", "GIF image", kRecognise},
    {8, "WEBP", "WebP image", kRecognise},
    {0, "II*\0"sv, "TIFF image", kRecognise},
    {0, "MM\0*"sv, "TIFF image", kRecognise},
    {0, "BM", "BMP image", kRecognise},
    {0, "\0\0\1\0"sv, "icon", kRecognise},
    {0, "8BPS", "Photoshop image", kRecognise},
    {0, "AT&TFORM", "DjVu document", kSave},
    {0, "PK\3\4", kZipKind, kUnpack},
    {0, "PK\5\6", kZipKind, kUnpack},
    {0, "\x1F\x8B", "gzip file", kUnpack},
    {0, "\x1F\x9D", "file of compress", kUnpack},
    {0, "BZh", "bzip2 file", kUnpack},
    {0,
     "\xFD"
     "7zXZ\0"sv,
     "xz file", kUnpack},
    {0, "\x28\xB5\x2F\xFD", "Zstandard file", kUnpack},
    {0, "\x04\x22\x4D\x18", "LZ4 file", kUnpack},
    {0, "7z\xBC\xAF\x27\x1C", "7-Zip archive", kUnpack},
    {0, "Rar!\x1A\x07", "RAR archive", kUnpack},
    {257, "ustar", "tar archive", kUnpack},
    {0, "!<arch>\n", "ar archive", kUnpack},
    {0, "\xED\xAB\xEE\xDB", "RPM package", kUnpack},
    {0, "MSCF", "CAB archive", kUnpack},
    {0,
     "\x7F"
     "ELF",
     "ELF program"},
    {0, "MZ", "Windows program"},
    {0, "\xCF\xFA\xED\xFE", "Mach-O program"},
    {0, "\xCE\xFA\xED\xFE", "Mach-O program"},
    {0, "\xCA\xFE\xBA\xBE", "Java class"},
    {0, "\0asm"sv, "WebAssembly program"},
    {0, "BC\xC0\xDE", "LLVM bitcode"},
    {2, "\r\n\0\0\0\0"sv, "Python bytecode"},
    {0, "SQLite format 3\0"sv, "SQLite database"},
    {0, "\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1", "Office file of before 2007, or an encrypted one",
     kSave},
    {8, "WAVE", "WAV audio", kTranscribe},
    {8, "AVI ", "AVI video", kTranscribe},
    {0, "ID3", "MP3 audio", kTranscribe},
    {0, "\xFF\xFB", "MP3 audio", kTranscribe},
    {0, "\xFF\xF3", "MP3 audio", kTranscribe},
    {0, "OggS", "Ogg audio or video", kTranscribe},
    {0, "fLaC", "FLAC audio", kTranscribe},
    {4, "ftyp", "MP4 audio, video or image", kTranscribe},
    {0, "\x1A\x45\xDF\xA3", "Matroska or WebM video", kTranscribe},
    {0, "FLV\1", "Flash video", kTranscribe},
    {0, "wOFF", "font"},
    {0, "wOF2", "font"},
    {0, "OTTO", "font"},
    {0, "\0\1\0\0"sv, "font"},
    {0, "GGUF", "GGUF model"},
    {5, "\0\0\0{\""sv, "safetensors file"},  // behind the low bytes of a length
    {0, "\x93NUMPY", "NumPy array"},
    {0, "\x89HDF\r\n\x1A\n", "HDF5 file"},
    {0, "PAR1", "Parquet file"},
    {0, "ARROW1", "Arrow file"},
    {0, "\x80\2", "Python pickle"},
    {0, "\x80\3", "Python pickle"},
    {0, "\x80\4", "Python pickle"},
    {0, "\x80\5", "Python pickle"},
};

template <size_t n>
const Signature* Match(const Signature (&signatures)[n], std::string_view head, bool is_text) {
  const auto* found = std::find_if(std::begin(signatures), std::end(signatures), [&](auto& s) {
    if (head.size() < s.offset || !head.substr(s.offset).starts_with(s.bytes)) return false;
    return s.goes_on == nullptr || s.goes_on(head.substr(s.offset + s.bytes.size()), is_text);
  });
  return found == std::end(signatures) ? nullptr : found;
}

}  // namespace

bool IsText(std::string_view head) {
  const Utf8Scan scan = ScanUtf8(head);
  return scan.valid_bytes == head.size() || (scan.incomplete && head.size() == kKindBytes) ||
         !CharsetOfMark(head).empty() || !XmlCharset(head).empty();
}

std::string_view KindOf(std::string_view head) {
  head = head.substr(0, kKindBytes);
  // Text of an old encoding is text, too: what is none has control characters.
  const bool is_text = IsText(head) || MayBeOtherText(head);
  const Signature* found = Match(kTextSignatures, head, is_text);
  if (found == nullptr && !is_text) found = Match(kSignatures, head, is_text);
  if (found == nullptr) {
    // Its reader passes over what stands in front of it.
    SkipSpaces(&head, " \t\r\n\f");
    found = Match(kTextSignatures, head, is_text);
    if (found != nullptr && found->kind != kPdfKind) found = nullptr;
  }
  return found == nullptr ? std::string_view() : found->kind;
}

bool MayBeOtherText(std::string_view head) {
  return std::none_of(head.begin(), head.end(), [](char c) {
    return (c >= 0 && c < ' ' && (c < '\t' || c > '\r') && c != '\x1B') || c == '\x7F';
  });
}

absl::Status NoTextError(std::string_view name, std::string_view kind) {
  std::string_view advice =
      kind == kSpreadsheetKind || kind == kPresentationKind || kind == kDrawingKind ? kSave : "";
  const auto find_advice = [&](const auto& signatures) {
    for (const Signature& signature : signatures) {
      if (signature.kind == kind) advice = signature.advice;
    }
  };
  find_advice(kSignatures);
  find_advice(kTextSignatures);
  absl::Status status = absl::InvalidArgumentError(StrCat(
      name, ": no text, but a file of this kind: ", kind, ": ",
      advice.empty() ? "want UTF-8 text, Markdown, HTML, JSONL, PDF, DOCX, ODT or EPUB" : advice));
  SetKind(&status, kind);
  return status;
}

void SetKind(absl::Status* status, std::string_view kind) {
  status->SetPayload(kKindPayload, absl::Cord(ToAbsl(kind)));
}

std::string KindOfError(const absl::Status& status) {
  const auto kind = status.GetPayload(kKindPayload);
  return kind ? std::string(*kind) : "";
}

}  // namespace fovea::documents
