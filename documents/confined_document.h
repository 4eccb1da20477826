// A document of a format whose reader runs in a process of its own (confined_process.h): what the
// reader sends, as a stream of text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "documents/confined_process.h"
#include "documents/input_file.h"
#include "documents/text_document.h"

namespace fovea::documents {

// The reader's end, in the child process.
class TextSender {
 public:
  TextSender(const MessageWriter& parent, uint64_t max_text_bytes)
      : parent_(parent), left_bytes_(max_text_bytes), max_text_bytes_(max_text_bytes) {}

  // Before any text.
  void SendTitle(std::string_view title);
  // The next piece: valid UTF-8 without NUL bytes, ending between characters. False once the
  // document has more text than it may: the reader is to return.
  [[nodiscard]] bool SendText(std::string_view text);
  // TextDocument::warning.
  void SendWarning(std::string_view warning);
  // The file is of this kind, without a text of its own: the document is a NoTextError.
  void SendNoText(std::string_view kind);
  // The document has no text at all: it is an EmptyError of this kind, with its warning as the
  // reason.
  void SendEmpty(std::string_view kind);
  // Why the reader ends early; it returns then. The message need not name the file.
  void SendError(const absl::Status& error);

 private:
  const MessageWriter& parent_;
  uint64_t left_bytes_;
  const uint64_t max_text_bytes_;
};

struct ConfinedReader {
  std::string format;  // "PDF", for messages
  std::string advice;  // what to do about a file that it crashes on, or that goes over a limit
  ProcessLimits limits;
  uint64_t max_text_bytes = 0;
  // In the child, which is a copy of this process; once for every reading from the start.
  std::function<void(TextSender&)> read;
};

// Reads the first kilobytes: InvalidArgument for a document without text (with its warning as the
// reason), else as `read` or the process's end says. The file's name becomes the source.
absl::StatusOr<std::unique_ptr<TextDocument>> OpenConfined(std::unique_ptr<InputFile> file,
                                                           ConfinedReader reader);

}  // namespace fovea::documents
