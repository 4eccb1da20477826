#include "documents/text_document.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "documents/charset.h"
#include "documents/file_kind.h"
#include "documents/html.h"
#include "documents/input_file.h"
#include "documents/jsonl.h"
#include "documents/names.h"
#include "documents/pdf.h"
#include "documents/plain_text.h"
#include "documents/titles.h"
#include "documents/utf8.h"
#include "documents/zip_document.h"

namespace fovea::documents {
namespace {

void LowerCase(std::string* text) {
  for (char& c : *text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
}

std::string LowerCaseExtension(const std::filesystem::path& path) {
  std::string extension = path.extension().native();
  LowerCase(&extension);
  return extension;
}

// Named as a document: that it cannot be read is an error wherever it lies.
bool IsNamedAsDocument(std::string_view extension) {
  static constexpr std::string_view kExtensions[] = {".txt",  ".text", ".md",    ".markdown",
                                                     ".html", ".htm",  ".xhtml", ".jsonl",
                                                     ".pdf",  ".docx", ".odt",   ".epub"};
  return std::find(std::begin(kExtensions), std::end(kExtensions), extension) !=
         std::end(kExtensions);
}

// Behind marks, white space and comments, which may stand in front of a page.
std::string_view SkipToMarkup(std::string_view head) {
  for (size_t before = head.size() + 1; head.size() < before;) {
    before = head.size();
    if (head.starts_with(kByteOrderMark)) head.remove_prefix(kByteOrderMark.size());
    head.remove_prefix(std::min(head.find_first_not_of(" \t\r\n\f"), head.size()));
    if (head.starts_with("<!--")) {
      const size_t end = head.find("-->", 4);
      head.remove_prefix(end == std::string_view::npos ? head.size() : end + 3);
    }
  }
  return head;
}

// A page of HTML in a file whose name does not say so.
bool BeginsAsHtml(std::string_view head) {
  constexpr size_t kBytes = 1024;
  std::string ascii;  // of UTF-16 and UTF-32: what tags are written in
  if (!CharsetOfMark(head).empty()) {
    std::copy_if(head.begin(), head.end(), std::back_inserter(ascii), [](char c) { return c > 0; });
    head = ascii;
  }
  std::string begin(SkipToMarkup(head).substr(0, kBytes));
  LowerCase(&begin);
  if (begin.starts_with("<!doctype html")) return true;
  // A text may begin with a word about the tag.
  const bool has_frame = begin.find("<head") != std::string::npos ||
                         begin.find("<body") != std::string::npos ||
                         begin.find("</") != std::string::npos;
  if (begin.starts_with("<html")) return has_frame;
  return begin.starts_with("<?xml") && begin.find("<html") != std::string::npos;
}

constexpr std::string_view kRecords = ".jsonl";

enum class Format { kPlainText, kMarkdown, kHtml, kJsonl, kPdf, kZip, kNoText };

Format FormatOf(std::string_view extension, std::string_view head) {
  const std::string_view kind = KindOf(head);
  if (kind == kPdfKind) return Format::kPdf;
  if (kind == kZipKind) return Format::kZip;
  if (!kind.empty()) return Format::kNoText;
  if (extension == ".pdf") return Format::kPdf;  // its reader looks further for a beginning
  if (extension == kRecords) return Format::kJsonl;
  if (extension == ".md" || extension == ".markdown") return Format::kMarkdown;
  if (extension == ".html" || extension == ".htm" || extension == ".xhtml") return Format::kHtml;
  if (!IsNamedAsDocument(extension) && BeginsAsHtml(head)) return Format::kHtml;
  return Format::kPlainText;
}

// The kind of a file that has no text and begins like nothing that is known.
std::string OtherKind(std::string_view extension, std::string_view head) {
  constexpr size_t kMaxExtensionBytes = 16;
  const bool has_name = !extension.empty() && extension.size() <= kMaxExtensionBytes;
  return StrCat(has_name ? PrintableName(extension) + " file" : "file without an extension",
                MayBeOtherText(head) || LooksLikeUtf16(head)
                    ? ", text of another encoding than UTF-8"
                    : ", not text");
}

}  // namespace

bool MayHoldRecords(std::string_view name) { return LowerCaseExtension(name) == kRecords; }

absl::Status ReadDocuments(const std::filesystem::path& path, const ReadLimits& limits,
                           Visitor visit) {
  absl::StatusOr<std::string> source = SourceOfPath(path);
  if (!source.ok()) return visit(PrintableName(path.native()), source.status());
  absl::StatusOr<std::unique_ptr<InputFile>> file = InputFile::Open(path, *source);
  if (!file.ok()) return visit(*source, file.status());
  std::string head;
  absl::Status status = (*file)->Read(kKindBytes, &head);
  if (status.ok()) status = (*file)->Rewind();
  if (!status.ok()) return visit(*source, status);

  const std::string extension = LowerCaseExtension(path);
  absl::StatusOr<std::unique_ptr<TextDocument>> document;
  const Format format = FormatOf(extension, head);
  switch (format) {
    case Format::kJsonl:
      return ReadJsonl(**file, limits, visit);
    case Format::kNoText:
      return visit(*source, NoTextError(*source, KindOf(head)));
    case Format::kHtml:
      document = OpenHtml(**file, limits);
      break;
    case Format::kPdf:
      document = OpenPdf(path, *std::move(file), limits);
      break;
    case Format::kZip:
      document = OpenZipDocument(*std::move(file), IsNamedAsDocument(extension), limits);
      break;
    case Format::kMarkdown:
      document = OpenPlainText(*std::move(file), TextKind::kMarkdown);
      break;
    case Format::kPlainText:
      document = OpenPlainText(*std::move(file), TextKind::kPlain);
      break;
  }
  const bool is_named = IsNamedAsDocument(extension);
  if (document.ok()) {
    std::string& title = (*document)->title;
    // Beside main.c and main.h "main" says little.
    if (title.empty()) title = is_named ? FileTitle(path) : FileNameTitle(path);
    return visit(*source, std::move(document));
  }
  status = document.status();
  if (absl::IsInvalidArgument(status) && !is_named && KindOfError(status).empty()) {
    SetKind(&status, OtherKind(extension, head));
  }
  return visit(*source, status);
}

}  // namespace fovea::documents
