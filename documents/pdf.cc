#include "documents/pdf.h"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-page.h>

#include <string>
#include <utility>
#include <vector>

#include "documents/confined_process.h"
#include "documents/errors.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

// What poppler said first since it was cleared: the cause; the rest are consequences.
std::string poppler_message;

void KeepMessage(const std::string& message, void*) {
  if (poppler_message.empty()) poppler_message = OneLine(message, 200);
}

std::string ToUtf8(const poppler::ustring& text) {
  const std::vector<char> bytes = text.to_utf8();
  return std::string(bytes.begin(), bytes.end());
}

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

// What the child process tells, in this order: the title, pages, and the reason where it ended
// early.
constexpr char kTitle = 't';
constexpr char kPage = 'p';
constexpr char kBroken = 'b';
constexpr char kEncrypted = 'e';
constexpr char kTooMuchText = 'm';
constexpr char kPageCount = 'n';

// In the child: poppler is large, its input may be anyone's, and a few bytes of PDF can stand for
// gigabytes.
void ReadPages(const std::filesystem::path& path, const ReadLimits& limits,
               const MessageWriter& parent) {
  // poppler's own way is to print to standard error.
  poppler::set_debug_error_function(&KeepMessage, nullptr);
  poppler_message.clear();
  ConfinedProcess::AllowSeconds(limits.max_pdf_page_seconds);
  const std::unique_ptr<poppler::document> pdf(poppler::document::load_from_file(path.native()));
  if (pdf == nullptr) {
    parent.Send(kBroken, StrCat("broken PDF, or none: ",
                                poppler_message.empty() ? "unreadable" : poppler_message));
    return;
  }
  if (pdf->is_locked()) {
    parent.Send(kEncrypted, "");
    return;
  }
  parent.Send(kTitle, OneLine(ToUtf8(pdf->info_key("Title")), kMaxTitleBytes));
  const int n_pages = pdf->pages();
  parent.Send(kPageCount, std::to_string(n_pages));
  uint64_t text_bytes = 0;
  for (int index = 0; index < n_pages; ++index) {
    ConfinedProcess::AllowSeconds(limits.max_pdf_page_seconds);
    poppler_message.clear();
    const std::unique_ptr<poppler::page> page(pdf->create_page(index));
    if (page == nullptr) {
      parent.Send(kBroken,
                  StrCat("broken PDF: page ", index + 1, " of ", n_pages, " cannot be read: ",
                         poppler_message.empty() ? "no such page" : poppler_message));
      return;
    }
    const std::string text =
        CleanPage(ToUtf8(page->text(poppler::rectf(), poppler::page::non_raw_non_physical_layout)));
    text_bytes += text.size();
    if (text_bytes > limits.max_pdf_text_bytes) {
      parent.Send(kTooMuchText, "");
      return;
    }
    if (!IsBlank(text)) parent.Send(kPage, text);
  }
}

class PdfDocument final : public TextDocument {
 public:
  PdfDocument(std::filesystem::path path, std::unique_ptr<InputFile> file, const ReadLimits& limits)
      : path_(std::move(path)), file_(std::move(file)), limits_(limits) {
    source = file_->name();
  }

  absl::Status Read(size_t max_bytes, std::string* out) override {
    FOVEA_CHECK(max_bytes >= 4);
    while (at_ == text_.size()) {
      ASSIGN_OR_RETURN(const bool more, NextPage());
      if (!more) return file_->CheckUnchanged();
    }
    const std::string_view piece = Utf8Prefix(std::string_view(text_).substr(at_), max_bytes);
    *out += piece;
    at_ += piece.size();
    return absl::OkStatus();
  }

  absl::Status Rewind() override {
    RETURN_IF_ERROR(file_->CheckUnchanged());
    reader_.reset();
    ended_ = absl::OkStatus();
    at_end_ = false;
    any_ = false;
    text_.clear();
    at_ = 0;
    return absl::OkStatus();
  }

  uint64_t size_bytes() const override { return file_->size_bytes(); }
  const std::string& n_pages() const { return n_pages_; }

 private:
  // Takes a page into text_; false at the end. A broken file stays broken until Rewind.
  absl::StatusOr<bool> NextPage() {
    RETURN_IF_ERROR(ended_);
    if (at_end_) return false;
    if (reader_ == nullptr) {
      ASSIGN_OR_RETURN(
          reader_, ConfinedProcess::Start(
                       {limits_.max_pdf_memory_bytes, limits_.max_pdf_seconds},
                       [this](const MessageWriter& parent) { ReadPages(path_, limits_, parent); }));
    }
    absl::StatusOr<Message> message = reader_->Next();
    if (absl::IsCancelled(message.status())) return ended_ = message.status();
    if (!message.ok()) {
      return ended_ = absl::Status(message.status().code(),
                                   StrCat(source, ": PDF: ", message.status().message(),
                                          ": save it as text, or print it into a new PDF"));
    }
    switch (message->kind) {
      case kTitle:
        if (!has_title_) title = message->payload;  // later it may be the user's
        has_title_ = true;
        return true;
      case kPageCount:
        n_pages_ = message->payload;
        return true;
      case kPage:
        text_ = any_ ? StrCat("\n\n", message->payload) : std::move(message->payload);
        any_ = true;
        at_ = 0;
        return true;
      case kBroken:
        return ended_ = absl::DataLossError(StrCat(source, ": ", message->payload));
      case kEncrypted:
        return ended_ = absl::InvalidArgumentError(
                   StrCat(source, ": encrypted PDF: save it without its password first"));
      case kTooMuchText:
        return ended_ = absl::ResourceExhaustedError(StrCat(source, ": its pages have more than ",
                                                            limits_.max_pdf_text_bytes,
                                                            " bytes of text: split it"));
      default:
        at_end_ = true;
        return false;
    }
  }

  const std::filesystem::path path_;
  std::unique_ptr<InputFile> file_;
  const ReadLimits limits_;
  std::unique_ptr<ConfinedProcess> reader_;
  absl::Status ended_;
  bool at_end_ = false;
  bool has_title_ = false;
  bool any_ = false;  // a page before has given text
  std::string n_pages_ = "0";
  std::string text_;  // of the current page, with what sets it apart from the one before
  size_t at_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextDocument>> OpenPdf(const std::filesystem::path& path,
                                                      std::unique_ptr<InputFile> file,
                                                      const ReadLimits& limits) {
  const std::string name = file->name();
  if (file->size_bytes() == 0) return EmptyError(name, "");
  if (file->size_bytes() > limits.max_pdf_bytes) {
    return absl::ResourceExhaustedError(StrCat(name, ": ", file->size_bytes(),
                                               " bytes, and a PDF may have at most ",
                                               limits.max_pdf_bytes, ": split it"));
  }
  auto document = std::make_unique<PdfDocument>(path, std::move(file), limits);
  std::string head;
  RETURN_IF_ERROR(document->Read(4096, &head));
  if (head.empty()) {
    return EmptyError(name, StrCat(document->n_pages(),
                                   " pages without text: scanned pages need text recognition"));
  }
  RETURN_IF_ERROR(document->Rewind());
  return document;
}

}  // namespace fovea::documents
