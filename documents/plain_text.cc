#include "documents/plain_text.h"

#include <algorithm>
#include <string>
#include <utility>

#include "documents/charset.h"
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
    if (status_.ok()) {
      const size_t piece_bytes = std::min(max_bytes, kMaxPieceBytes);
      status_ = decoder_ ? ReadDecoded(piece_bytes, out) : ReadPiece(piece_bytes, out);
    }
    return status_;
  }

  absl::Status Rewind() override {
    status_ = file_->Rewind();
    pending_.clear();
    if (decoder_) decoder_->Reset();
    decoded_.clear();
    decoded_at_ = 0;
    at_start_ = true;
    return status_;
  }

  // The file's bytes are to be converted. Before the first Read.
  void set_decoder(std::unique_ptr<Decoder> decoder) { decoder_ = std::move(decoder); }

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

  absl::Status ReadDecoded(size_t max_bytes, std::string* out) {
    while (decoded_at_ == decoded_.size()) {
      std::string bytes;
      RETURN_IF_ERROR(file_->Read(kHeadBytes, &bytes));
      decoded_.clear();
      decoded_at_ = 0;
      const absl::Status status = decoder_->Decode(bytes, /*at_end=*/bytes.empty(), &decoded_);
      if (!status.ok()) return Annotate(status, file_->name());
      const size_t valid_bytes = ScanUtf8(decoded_).valid_bytes;
      if (valid_bytes < decoded_.size()) {
        return NotTextError(file_->name(), decoded_, valid_bytes, 0);
      }
      if (at_start_ && decoded_.starts_with(kByteOrderMark)) decoded_at_ = kByteOrderMark.size();
      at_start_ = at_start_ && decoded_.empty();
      if (bytes.empty()) break;
    }
    const std::string_view rest = std::string_view(decoded_).substr(decoded_at_);
    const std::string_view piece = Utf8Prefix(rest, max_bytes);
    *out += piece;
    decoded_at_ += piece.size();
    return absl::OkStatus();
  }

  std::unique_ptr<InputFile> file_;
  std::string pending_;  // the start of a character that the last piece cut off: 3 bytes at most
  std::unique_ptr<Decoder> decoder_;  // null: the file is UTF-8
  std::string decoded_;  // text of the last bytes that were read; given up to decoded_at_
  size_t decoded_at_ = 0;
  bool at_start_ = true;
  absl::Status status_;
};

// For a text with the mark of another encoding, or an XML file that declares one; null for UTF-8.
absl::StatusOr<std::unique_ptr<Decoder>> FindDecoder(InputFile& file) {
  std::string head;
  RETURN_IF_ERROR(file.Read(kDeclarationBytes, &head));
  RETURN_IF_ERROR(file.Rewind());
  Charset charset{CharsetOfMark(head).data(), false};
  if (CharsetOfMark(head).empty()) {
    // Valid so far is no proof, but where a declaration errs, then towards old encodings.
    const Utf8Scan scan = ScanUtf8(head);
    const bool may_be_utf8 = scan.valid_bytes == head.size() || scan.incomplete;
    if (!FindCharset(XmlCharset(head), &charset)) return nullptr;
    if (charset.iconv_name == std::string_view("UTF-8")) return nullptr;
    const bool is_ascii = std::all_of(head.begin(), head.end(), [](char c) { return c >= 0; });
    if (may_be_utf8 && !is_ascii && charset.one_byte) return nullptr;
  }
  absl::StatusOr<std::unique_ptr<Decoder>> decoder = Decoder::Create(charset.iconv_name);
  if (!decoder.ok()) return Annotate(decoder.status(), file.name());
  return decoder;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextDocument>> OpenPlainText(std::unique_ptr<InputFile> file,
                                                            TextKind kind) {
  ASSIGN_OR_RETURN(std::unique_ptr<Decoder> decoder, FindDecoder(*file));
  auto document = std::make_unique<PlainTextDocument>(std::move(file));
  document->set_decoder(std::move(decoder));
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
