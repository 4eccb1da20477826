// A document's text as a stream of tokens with bounded memory. The text is tokenized in pieces that
// are cut where every tokenizer starts a new word anyway (a letter, a space, a letter), so that the
// tokens are those of the whole text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"
#include "documents/text_document.h"
#include "memory/ingest/windowing.h"
#include "model/tokenizer/tokenizer.h"

namespace fovea::memory {

// Not thread-safe. Borrows both.
class TokenStream {
 public:
  TokenStream(documents::TextDocument* document, const model::Tokenizer* tokenizer)
      : document_(document), tokenizer_(tokenizer) {}

  // Buffers at least n tokens, or all that are left (at_end() is then true).
  absl::Status Fill(int64_t n_tokens);
  bool at_end() const { return at_end_; }
  // What is buffered.
  TokenSpan tokens() const { return {ids_, ends_, 0, text_}; }
  // Drops the first n tokens and their text.
  void Consume(int64_t n_tokens);

 private:
  absl::Status ReadPiece();

  documents::TextDocument* document_;
  const model::Tokenizer* tokenizer_;
  std::string unread_;  // text read but not tokenized yet
  bool document_at_end_ = false;
  bool first_piece_ = true;
  bool at_end_ = false;
  std::vector<int32_t> ids_;
  std::vector<uint32_t> ends_;
  std::string text_;
};

}  // namespace fovea::memory
