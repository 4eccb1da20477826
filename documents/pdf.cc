#include "documents/pdf.h"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-page.h>

#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "documents/confined_document.h"
#include "documents/file_kind.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

// What poppler said first since it was cleared: the cause; the rest are consequences.
std::string poppler_message;

void KeepMessage(const std::string& message, void*) {
  if (!poppler_message.empty()) return;
  // It writes control characters of a file's as "<0a>".
  std::string text = message;
  for (size_t at = 0; (at = text.find("<0a>", at)) != text.npos;) text.replace(at, 4, " ");
  poppler_message = OneLine(text, 200);
}

std::string ToUtf8(const poppler::ustring& text) {
  const std::vector<char> bytes = text.to_utf8();
  return std::string(bytes.begin(), bytes.end());
}

// Whether poppler's message says that a page's own stream broke off, so that the text before it is
// not all: its other messages may be about anything on the page.
bool IsOfAStream(std::string_view message) {
  return message.find("flate stream") != message.npos || message.find("LZW") != message.npos;
}

// Whether it says that poppler has no data for an encoding of Chinese, Japanese or Korean text. It
// then knows no character of the font, and is silent about what it leaves out. Such data is a
// package of its own, which an installation may lack.
bool IsOfAnEncoding(std::string_view message) {
  return message.find("language pack") != message.npos ||  // "Missing … for 'Adobe-GB1' mapping"
         message.find("CMap file") != message.npos;        // "Couldn't find 'GBK-EUC-H' …"
}

// Some of the pages: how many, and which was the first.
struct Pages {
  int n = 0;
  std::string first;

  void Add(int index, std::string_view why) {
    if (n++ == 0) first = StrCat("page ", index + 1, why.empty() ? "" : ": ", why);
  }
  // Words for a warning, after those in *text; nothing where there are none.
  void Describe(int n_pages, std::string_view what, std::string_view after,
                std::string* text) const {
    if (n == 0) return;
    *text += StrCat(text->empty() ? "" : "; ", n, " of ", n_pages, " pages ", what,
                    ", the first: ", first, after);
  }
};

// A page's text without control characters (form feeds too), trailing spaces of lines and empty
// lines at both ends.
std::string CleanPage(std::string_view page) {
  std::string clean;
  const auto end_line = [&clean] {
    while (!clean.empty() && (clean.back() == ' ' || clean.back() == '\t')) clean.pop_back();
  };
  while (!page.empty()) {
    const std::string_view valid = page.substr(0, ScanUtf8(page).valid_bytes);
    for (const char c : valid) {
      if (c == '\n') {
        end_line();
        if (!clean.empty()) clean.push_back('\n');
      } else if (static_cast<unsigned char>(c) >= 0x20 || c == '\t') {
        clean.push_back(c);
      }
    }
    page.remove_prefix(valid.size());
    if (!page.empty()) page.remove_prefix(1);  // NUL, or half a surrogate pair
  }
  while (!clean.empty() && (clean.back() == '\n' || clean.back() == ' ' || clean.back() == '\t')) {
    clean.pop_back();
  }
  return clean;
}

// Whether a PDF may begin in the file's first bytes, as far as its readers look.
bool BeginsAsPdf(const std::filesystem::path& path) {
  constexpr size_t kBytes = 1024;
  std::string head(kBytes, '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(head.data(), static_cast<std::streamsize>(head.size()));
  return head.find("%PDF-") != std::string::npos;
}

// In the child: poppler is large, its input may be anyone's, and a few bytes of PDF can stand for
// gigabytes.
void ReadPages(const std::filesystem::path& path, double page_seconds, TextSender& sender) {
  // poppler's own way is to print to standard error.
  poppler::set_debug_error_function(&KeepMessage, nullptr);
  poppler_message.clear();
  ConfinedProcess::AllowSeconds(page_seconds);
  const std::unique_ptr<poppler::document> pdf(poppler::document::load_from_file(path.native()));
  if (pdf == nullptr && !BeginsAsPdf(path)) {
    return sender.SendError(absl::DataLossError(
        "broken PDF, or none: it does not begin with %PDF-: if it is something else, name it so"));
  }
  if (pdf == nullptr) {
    return sender.SendError(absl::DataLossError(
        StrCat("broken PDF, or none: ", poppler_message.empty() ? "unreadable" : poppler_message)));
  }
  if (pdf->is_locked()) {
    return sender.SendError(
        absl::InvalidArgumentError("encrypted PDF: save it without its password first"));
  }
  sender.SendTitle(ToUtf8(pdf->info_key("Title")));
  const int n_pages = pdf->pages();
  if (n_pages <= 0) return sender.SendError(absl::DataLossError("broken PDF: it has no pages"));
  Pages unreadable, damaged, undecoded, without_text;
  bool any = false;
  for (int index = 0; index < n_pages; ++index) {
    ConfinedProcess::AllowSeconds(page_seconds);
    poppler_message.clear();
    const std::unique_ptr<poppler::page> page(pdf->create_page(index));
    if (page == nullptr) {
      unreadable.Add(index, poppler_message.empty() ? "no such page" : poppler_message);
      // A file may claim any number of pages.
      constexpr int kMaxUnreadable = 1000;
      if (unreadable.n <= kMaxUnreadable) continue;
      return sender.SendError(
          absl::DataLossError(StrCat("broken PDF: more than ", kMaxUnreadable, " of ", n_pages,
                                     " pages cannot be read, the first: ", unreadable.first)));
    }
    const std::string text =
        CleanPage(ToUtf8(page->text(poppler::rectf(), poppler::page::non_raw_non_physical_layout)));
    const bool is_blank = IsBlank(text);
    if (IsOfAStream(poppler_message)) {
      damaged.Add(index, poppler_message);
    } else if (IsOfAnEncoding(poppler_message)) {
      undecoded.Add(index, poppler_message);
    } else if (is_blank && !poppler_message.empty()) {
      unreadable.Add(index, poppler_message);
    } else if (is_blank) {
      without_text.Add(index, "");
    }
    if (is_blank) continue;
    if (!sender.SendText(StrCat(any ? "\n\n" : "", text))) return;
    any = true;
  }
  constexpr std::string_view kWhatToDo = ": scanned pages need text recognition (OCR) first";
  if (without_text.n == n_pages) {
    sender.SendWarning(StrCat(n_pages, n_pages == 1 ? " page" : " pages", kWhatToDo));
    sender.SendEmpty(kEmptyPdfKind);
    return;
  }
  std::string warning;
  unreadable.Describe(n_pages, "cannot be read", "", &warning);
  damaged.Describe(n_pages, any ? "damaged, so that text of theirs is missing" : "damaged", "",
                   &warning);
  const bool is_broken = !warning.empty();
  undecoded.Describe(n_pages, "use encodings that poppler has no data for",
                     any ? ": text of theirs may be missing; install the package poppler-data"
                         : ": install the package poppler-data",
                     &warning);
  // Those may have had text.
  if (!any && is_broken) {
    return sender.SendError(absl::DataLossError(StrCat("broken PDF: ", warning)));
  }
  if (!any) return sender.SendError(absl::FailedPreconditionError(StrCat("PDF: ", warning)));
  without_text.Describe(n_pages, "have no text", kWhatToDo, &warning);
  if (!warning.empty()) sender.SendWarning(warning);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextDocument>> OpenPdf(const std::filesystem::path& path,
                                                      std::unique_ptr<InputFile> file,
                                                      const ReadLimits& limits) {
  if (file->size_bytes() > limits.max_pdf_bytes) {
    return absl::ResourceExhaustedError(StrCat(file->name(), ": ", file->size_bytes(),
                                               " bytes, and a PDF may have at most ",
                                               limits.max_pdf_bytes, ": split it"));
  }
  return OpenConfined(std::move(file),
                      {.format = "PDF",
                       .advice = "save it as text, or print it into a new PDF",
                       .limits = {limits.max_pdf_memory_bytes, limits.max_pdf_seconds},
                       .max_text_bytes = limits.max_pdf_text_bytes,
                       .read = [path, page_seconds = limits.max_pdf_page_seconds](
                                   TextSender& sender) { ReadPages(path, page_seconds, sender); }});
}

}  // namespace fovea::documents
