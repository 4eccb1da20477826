#include "documents/pdf.h"

#include <poppler-document.h>
#include <poppler-global.h>
#include <poppler-page.h>

#include <exception>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "documents/errors.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

// What poppler said first since it was cleared: the cause; the rest are consequences.
thread_local std::string poppler_message;

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

class PdfDocument final : public TextDocument {
 public:
  PdfDocument(std::unique_ptr<InputFile> file, std::unique_ptr<poppler::document> pdf)
      : file_(std::move(file)), pdf_(std::move(pdf)) {
    source = file_->name();
  }

  absl::Status Read(size_t max_bytes, std::string* out) override {
    FOVEA_CHECK(max_bytes >= 4);
    while (at_ == text_.size()) {
      if (next_page_ == pdf_->pages()) return file_->CheckUnchanged();
      ASSIGN_OR_RETURN(std::string page, PageText(next_page_));
      ++next_page_;
      if (IsBlank(page)) continue;
      text_ = std::move(page);
      if (any_) text_.insert(0, "\n\n");
      any_ = true;
      at_ = 0;
    }
    const std::string_view piece = Utf8Prefix(std::string_view(text_).substr(at_), max_bytes);
    *out += piece;
    at_ += piece.size();
    return absl::OkStatus();
  }

  absl::Status Rewind() override {
    RETURN_IF_ERROR(file_->CheckUnchanged());
    next_page_ = 0;
    any_ = false;
    text_.clear();
    at_ = 0;
    return absl::OkStatus();
  }

  uint64_t size_bytes() const override { return file_->size_bytes(); }
  int n_pages() const { return pdf_->pages(); }

 private:
  absl::StatusOr<std::string> PageText(int index) {
    std::string reason;
    poppler_message.clear();
    try {
      const std::unique_ptr<poppler::page> page(pdf_->create_page(index));
      if (page != nullptr) {
        return CleanPage(
            ToUtf8(page->text(poppler::rectf(), poppler::page::non_raw_non_physical_layout)));
      }
      reason = poppler_message.empty() ? "no such page" : poppler_message;
    } catch (const std::exception& exception) {
      reason = OneLine(exception.what(), 200);
    }
    return absl::DataLossError(StrCat(source, ": broken PDF: page ", index + 1, " of ",
                                      pdf_->pages(), " cannot be read: ", reason));
  }

  std::unique_ptr<InputFile> file_;
  std::unique_ptr<poppler::document> pdf_;
  int next_page_ = 0;
  bool any_ = false;  // a page before has given text
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
  // poppler's own way is to print to standard error.
  static std::once_flag once;
  std::call_once(once, [] { poppler::set_debug_error_function(&KeepMessage, nullptr); });

  poppler_message.clear();
  std::unique_ptr<poppler::document> pdf;
  std::string title;
  try {
    pdf.reset(poppler::document::load_from_file(path.native()));
    if (pdf != nullptr && pdf->is_locked()) {
      return absl::InvalidArgumentError(
          StrCat(name, ": encrypted PDF: save it without its password first"));
    }
    if (pdf != nullptr) title = OneLine(ToUtf8(pdf->info_key("Title")), kMaxTitleBytes);
  } catch (const std::exception& exception) {
    pdf.reset();
    poppler_message = OneLine(exception.what(), 200);
  }
  if (pdf == nullptr) {
    return absl::DataLossError(StrCat(
        name, ": broken PDF, or none: ", poppler_message.empty() ? "unreadable" : poppler_message));
  }

  auto document = std::make_unique<PdfDocument>(std::move(file), std::move(pdf));
  document->title = std::move(title);
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
