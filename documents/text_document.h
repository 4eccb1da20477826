// Files → documents with plain UTF-8 text: text of any kind, Markdown, HTML, JSONL, PDF, DOCX,
// ODT, EPUB. Nothing here knows of tokens or models.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::documents {

// A document whose text is read as a stream, from the start, as often as Rewind is called: memory
// stays bounded whatever its size. Not thread-safe.
class TextDocument {
 public:
  virtual ~TextDocument() = default;

  std::string title;  // one line; of the format, else the file's name; JSONL: may be empty
  // Absolute path, "path#id" (JSONL with ids), "path#line", or "-". Valid UTF-8 on one line,
  // whatever the path's bytes (names.h).
  std::string source;
  bool replaceable = true;  // the source names this document for good (not "path#line" and "-")
  std::string collection;   // from a JSONL record; empty: the caller's choice
  // What of the file is not in the text as it was, for people; empty: all is there. Known once the
  // text was read to its end.
  std::string warning;

  // Appends up to `max_bytes` (at least 4) of text to *out; nothing appended = the end. Pieces end
  // between UTF-8 characters. The text is valid UTF-8 without a byte-order mark, whatever the
  // file's own encoding; CRLF is kept.
  // InvalidArgument for content that is no text (NUL bytes, invalid UTF-8: says at which byte);
  // Aborted when the file changed since it was opened (seen at its end and by Rewind).
  virtual absl::Status Read(size_t max_bytes, std::string* out) = 0;
  virtual absl::Status Rewind() = 0;
  // Of the source file; 0 when unknown. For progress only.
  virtual uint64_t size_bytes() const { return 0; }
};

struct ReadLimits {
  // HTML is parsed, and a JSONL line and a PDF page held, as a whole.
  size_t max_html_bytes = size_t{64} << 20;
  size_t max_html_tree_bytes = size_t{2} << 30;  // of memory, while a page is parsed
  double max_html_parse_seconds = 60;            // of processor time
  size_t max_jsonl_line_bytes = size_t{64} << 20;
  size_t max_pdf_bytes = size_t{512} << 20;
  uint64_t max_pdf_text_bytes = uint64_t{1} << 30;  // of all pages
  size_t max_pdf_memory_bytes = size_t{1} << 30;    // of the process that reads it
  double max_pdf_page_seconds = 30;                 // of processor time
  double max_pdf_seconds = 1800;                    // for all pages
  // Of DOCX, ODT and EPUB.
  size_t max_zip_bytes = size_t{512} << 20;
  uint64_t max_zip_part_bytes = uint64_t{1} << 30;  // of the XML with the text, unpacked
  uint64_t max_zip_text_bytes = uint64_t{1} << 30;
  size_t max_zip_memory_bytes = size_t{1} << 30;  // of the process that reads it, beside the file
  double max_zip_seconds = 300;                   // of processor time
};

// One file may hold many documents (JSONL). A document that cannot be read, or that is empty, is
// an error *given to visit* (with its source), and the others go on. Records of one file that
// share an `id` share a source: the last one replaces the others.
using Visitor = absl::FunctionRef<absl::Status(
    const std::string& source, absl::StatusOr<std::unique_ptr<TextDocument>> document)>;

// Documents of one file. What the file is shows in its first bytes (PDF, DOCX, ODT, EPUB, and what
// has no text: images, archives, programs, …: KindOfError of file_kind.h names it) or in its name
// (.md, .markdown, .html, .htm, .xhtml, .jsonl); all else is taken as plain text if it is valid
// UTF-8, whatever its name. Returns the first error of `visit`.
absl::Status ReadDocuments(const std::filesystem::path& path, const ReadLimits& limits,
                           Visitor visit);

// Whether a file of this name (or source) may hold records, whose sources are "path#id".
bool MayHoldRecords(std::string_view name);

// Standard input as one plain-text document, spooled to a temporary file. Cancelled when a signal
// interrupts the reading.
absl::StatusOr<std::unique_ptr<TextDocument>> ReadStandardInput();

// A document from memory.
std::unique_ptr<TextDocument> MakeTextDocument(std::string title, std::string source,
                                               std::string text);

// A folder is never left out.
inline bool LeavesNothingOut(const std::filesystem::path&) { return false; }

struct FileList {
  std::vector<std::filesystem::path> files;  // sorted
  struct LeftOut {
    std::filesystem::path path;
    std::string kind;  // for people: "link to a folder", …
  };
  std::vector<LeftOut> left_out;
};

// The files of a folder and of those in it. Hidden files and folders (names that begin with a dot)
// are passed over; links to folders, to nothing, what is no regular file, and folders that
// `leaves_out` says yes to are left out. A folder in it that cannot be read is listed itself:
// ReadDocuments gives its error. NotFound when there is nothing at all. Without `recursive` a
// folder is an InvalidArgument error that says to pass --recursive. Anything but a folder is
// returned as it is; a `path` that `leaves_out` says yes to is an error.
absl::StatusOr<FileList> ListDocuments(
    const std::filesystem::path& path, bool recursive,
    absl::FunctionRef<bool(const std::filesystem::path& folder)> leaves_out = LeavesNothingOut);

}  // namespace fovea::documents
