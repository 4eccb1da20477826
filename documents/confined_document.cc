#include "documents/confined_document.h"

#include <utility>

#include "documents/errors.h"
#include "documents/file_kind.h"
#include "documents/titles.h"
#include "documents/utf8.h"

namespace fovea::documents {
namespace {

constexpr size_t kHeadBytes = 4096;

// Kinds of messages.
constexpr char kTitle = 't';
constexpr char kText = 'x';
constexpr char kWarning = 'w';
constexpr char kNoText = 'n';
constexpr char kEmpty = 'm';
constexpr char kError = 'e';  // its code as one byte, then its message

class ConfinedDocument final : public TextDocument {
 public:
  ConfinedDocument(std::unique_ptr<InputFile> file, ConfinedReader reader)
      : file_(std::move(file)), reader_(std::move(reader)) {
    source = file_->name();
  }

  absl::Status Read(size_t max_bytes, std::string* out) override {
    FOVEA_CHECK(max_bytes >= 4);
    while (at_ == text_.size()) {
      ASSIGN_OR_RETURN(const bool more, NextMessage());
      if (!more) return file_->CheckUnchanged();
    }
    const std::string_view piece = Utf8Prefix(std::string_view(text_).substr(at_), max_bytes);
    *out += piece;
    at_ += piece.size();
    return absl::OkStatus();
  }

  absl::Status Rewind() override {
    RETURN_IF_ERROR(file_->CheckUnchanged());
    // All text so far is still here: the process goes on, and what it has done is not done again.
    if (n_texts_ == 1 && ended_.ok()) {
      at_ = 0;
      return absl::OkStatus();
    }
    process_.reset();
    n_texts_ = 0;
    ended_ = absl::OkStatus();
    at_end_ = false;
    text_.clear();
    at_ = 0;
    return absl::OkStatus();
  }

  uint64_t size_bytes() const override { return file_->size_bytes(); }

 private:
  // False at the end. A broken file stays broken until Rewind.
  absl::StatusOr<bool> NextMessage() {
    RETURN_IF_ERROR(ended_);
    if (at_end_) return false;
    if (process_ == nullptr) {
      ASSIGN_OR_RETURN(process_,
                       ConfinedProcess::Start(reader_.limits, [this](const MessageWriter& parent) {
                         TextSender sender(parent, reader_.max_text_bytes);
                         reader_.read(sender);
                       }));
    }
    absl::StatusOr<Message> message = process_->Next();
    if (absl::IsCancelled(message.status())) return ended_ = message.status();
    if (!message.ok()) {
      return ended_ = absl::Status(message.status().code(),
                                   StrCat(source, ": ", reader_.format, ": ",
                                          message.status().message(), ": ", reader_.advice));
    }
    switch (message->kind) {
      case kTitle:
        if (!has_title_) title = OneLine(message->payload, kMaxTitleBytes);  // later the user's
        has_title_ = true;
        return true;
      case kText:
        text_ = std::move(message->payload);
        ++n_texts_;
        at_ = 0;
        return true;
      case kWarning:
        warning = std::move(message->payload);
        return true;
      case kNoText:
        return ended_ = NoTextError(source, message->payload);
      case kEmpty:
        return ended_ = EmptyError(source, warning, message->payload);
      case kError:
        return ended_ = Named(absl::Status(static_cast<absl::StatusCode>(message->payload[0]),
                                           message->payload.substr(1)));
      default:
        at_end_ = true;
        return false;
    }
  }

  // InputFile's errors begin with the name.
  absl::Status Named(const absl::Status& error) const {
    return ToStd(error.message()).starts_with(source) ? error : Annotate(error, source);
  }

  std::unique_ptr<InputFile> file_;
  const ConfinedReader reader_;
  std::unique_ptr<ConfinedProcess> process_;
  absl::Status ended_;
  bool at_end_ = false;
  bool has_title_ = false;
  std::string text_;  // of the last message; given up to at_
  size_t at_ = 0;
  int64_t n_texts_ = 0;  // messages with text, since the process was started
};

}  // namespace

void TextSender::SendTitle(std::string_view title) { parent_.Send(kTitle, title); }

bool TextSender::SendText(std::string_view text) {
  if (text.size() > left_bytes_) {
    SendError(absl::ResourceExhaustedError(
        StrCat("it has more than ", max_text_bytes_, " bytes of text: split it")));
    return false;
  }
  left_bytes_ -= text.size();
  if (!text.empty()) parent_.Send(kText, text);
  return true;
}

void TextSender::SendWarning(std::string_view warning) { parent_.Send(kWarning, warning); }

void TextSender::SendNoText(std::string_view kind) { parent_.Send(kNoText, kind); }

void TextSender::SendEmpty(std::string_view kind) { parent_.Send(kEmpty, kind); }

void TextSender::SendError(const absl::Status& error) {
  std::string payload(1, static_cast<char>(error.raw_code()));
  payload += ToStd(error.message());
  parent_.Send(kError, payload);
}

absl::StatusOr<std::unique_ptr<TextDocument>> OpenConfined(std::unique_ptr<InputFile> file,
                                                           ConfinedReader reader) {
  if (file->size_bytes() == 0) return EmptyError(file->name(), "");
  auto document = std::make_unique<ConfinedDocument>(std::move(file), std::move(reader));
  std::string head;
  RETURN_IF_ERROR(document->Read(kHeadBytes, &head));
  if (head.empty()) return EmptyError(document->source, document->warning);
  RETURN_IF_ERROR(document->Rewind());
  return document;
}

}  // namespace fovea::documents
