#include "documents/plain_text.h"

#include <algorithm>
#include <string>
#include <utility>

#include "documents/errors.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr size_t kHeadBytes = size_t{64} << 10;
constexpr size_t kMaxPieceBytes = size_t{1} << 20;

class PlainTextDocument final : public TextDocument {
 public:
  explicit PlainTextDocument(std::unique_ptr<InputFile> file) : file_(std::move(file)) {
    source = file_->name();
  }

  absl::Status Read(size_t max_bytes, std::string* out) override {
    FOVEA_CHECK(max_bytes >= 4);
    // A broken text stays broken until Rewind: no reader may step over the error.
    if (status_.ok()) status_ = ReadPiece(std::min(max_bytes, kMaxPieceBytes), out);
    return status_;
  }

  absl::Status Rewind() override {
    status_ = file_->Rewind();
    pending_.clear();
    return status_;
  }

  uint64_t size_bytes() const override { return file_->size_bytes(); }

 private:
  absl::Status ReadPiece(size_t max_bytes, std::string* out) {
    const uint64_t offset = file_->offset() - pending_.size();
    std::string piece = std::move(pending_);
    pending_.clear();
    const size_t pending_bytes = piece.size();
    RETURN_IF_ERROR(file_->Read(max_bytes - pending_bytes, &piece));
    const bool at_end = piece.size() == pending_bytes;
    const Utf8Scan scan = ScanUtf8(piece);
    if (scan.valid_bytes < piece.size()) {
      if (!scan.incomplete || at_end) {
        return NotTextError(file_->name(), piece, scan.valid_bytes, offset);
      }
      pending_ = piece.substr(scan.valid_bytes);
    }
    std::string_view text = std::string_view(piece).substr(0, scan.valid_bytes);
    if (offset == 0 && text.starts_with(kByteOrderMark)) {
      text.remove_prefix(kByteOrderMark.size());
    }
    // Nothing yet (half a character, or only the mark): an empty piece would read as the end.
    if (text.empty() && !at_end) return ReadPiece(max_bytes, out);
    *out += text;
    return absl::OkStatus();
  }

  std::unique_ptr<InputFile> file_;
  std::string pending_;  // the start of a character that the last piece cut off: 3 bytes at most
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TextDocument>> OpenPlainText(std::unique_ptr<InputFile> file,
                                                            TextKind kind) {
  auto document = std::make_unique<PlainTextDocument>(std::move(file));
  std::string head;
  bool ended = false;
  // To the end of a short file: then it is known to be text before its visitor sees it.
  while (head.size() < kHeadBytes && !ended) {
    const size_t before = head.size();
    RETURN_IF_ERROR(document->Read(kHeadBytes, &head));
    ended = head.size() == before;
  }
  document->title = kind == TextKind::kMarkdown ? MarkdownTitle(head) : PlainTextTitle(head);
  while (IsBlank(head)) {
    if (ended) return EmptyError(document->source, "");
    head.clear();
    RETURN_IF_ERROR(document->Read(kMaxPieceBytes, &head));
    ended = head.empty();
  }
  RETURN_IF_ERROR(document->Rewind());
  return document;
}

}  // namespace fovea::documents
