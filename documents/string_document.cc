#include "documents/string_document.h"

#include <utility>

#include "documents/errors.h"

namespace fovea::documents {

StringDocument::StringDocument(std::string text)
    : text_(std::move(text)),
      start_(text_.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0),
      at_(start_),
      valid_end_(ScanUtf8(text_).valid_bytes),
      file_size_bytes_(text_.size()) {}

absl::Status StringDocument::Read(size_t max_bytes, std::string* out) {
  FOVEA_CHECK(max_bytes >= 4);
  if (at_ == valid_end_ && at_ < text_.size()) return NotTextError(source, text_, at_, 0);
  const std::string_view valid = std::string_view(text_).substr(0, valid_end_);
  const std::string_view piece = Utf8Prefix(valid.substr(at_), max_bytes);
  *out += piece;
  at_ += piece.size();
  return absl::OkStatus();
}

absl::Status StringDocument::Rewind() {
  at_ = start_;
  return absl::OkStatus();
}

std::unique_ptr<TextDocument> MakeTextDocument(std::string title, std::string source,
                                               std::string text) {
  auto document = std::make_unique<StringDocument>(std::move(text));
  document->title = std::move(title);
  document->source = std::move(source);
  return document;
}

}  // namespace fovea::documents
