#include "memory/ingest/token_stream.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace fovea::memory {
namespace {

constexpr size_t kPieceBytes = 256 << 10;

// The last place to cut `text` at, by preference after "letter space-before letter"; the whole text
// where there is none (a text without words: any cut is as good).
size_t CutPiece(std::string_view text) {
  for (size_t i = text.size() - 1; i-- > 1;) {
    if (text[i] == ' ' && absl::ascii_isalpha(static_cast<unsigned char>(text[i - 1])) &&
        absl::ascii_isalpha(static_cast<unsigned char>(text[i + 1]))) {
      return i;
    }
  }
  return text.size();
}

}  // namespace

absl::Status TokenStream::ReadPiece() {
  while (!document_at_end_ && unread_.size() < kPieceBytes) {
    const size_t before = unread_.size();
    RETURN_IF_ERROR(document_->Read(kPieceBytes, &unread_));
    document_at_end_ = unread_.size() == before;
  }
  if (unread_.empty()) {
    at_end_ = true;
    return absl::OkStatus();
  }
  const size_t cut = document_at_end_ ? unread_.size() : CutPiece(unread_);
  std::string_view piece = std::string_view(unread_).substr(0, cut);
  // SentencePiece puts a space in front of what it encodes: the piece's own space is that one.
  const bool adds_space = tokenizer_->spec().kind == model::TokenizerSpec::Kind::kSentencePiece &&
                          tokenizer_->spec().add_space_prefix;
  const uint32_t skipped = !first_piece_ && adds_space && piece.starts_with(' ') ? 1 : 0;
  const model::Encoding encoding = tokenizer_->Encode(piece.substr(skipped));
  const auto offset = static_cast<uint32_t>(text_.size()) + skipped;
  ids_.insert(ids_.end(), encoding.ids.begin(), encoding.ids.end());
  for (uint32_t end : encoding.ends) ends_.push_back(offset + end);
  text_ += piece;
  if (!ends_.empty()) ends_.back() = static_cast<uint32_t>(text_.size());
  unread_.erase(0, cut);
  first_piece_ = false;
  at_end_ = document_at_end_ && unread_.empty();
  return absl::OkStatus();
}

absl::Status TokenStream::Fill(int64_t n_tokens) {
  while (!at_end_ && static_cast<int64_t>(ids_.size()) < n_tokens) RETURN_IF_ERROR(ReadPiece());
  return absl::OkStatus();
}

void TokenStream::Consume(int64_t n_tokens) {
  const uint32_t n_bytes = n_tokens == 0 ? 0 : ends_[n_tokens - 1];
  ids_.erase(ids_.begin(), ids_.begin() + n_tokens);
  ends_.erase(ends_.begin(), ends_.begin() + n_tokens);
  for (uint32_t& end : ends_) end -= n_bytes;
  text_.erase(0, n_bytes);
}

}  // namespace fovea::memory
