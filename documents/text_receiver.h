// Where the readers of DOCX, ODT and EPUB put what they find.
#pragma once

#include <string_view>

namespace fovea::documents {

class TextReceiver {
 public:
  virtual ~TextReceiver() = default;
  // Before any text, and once at most.
  virtual void Title(std::string_view title) = 0;
  // The next piece: valid UTF-8 without NUL bytes. False: there is enough, the reader is to end.
  [[nodiscard]] virtual bool Text(std::string_view text) = 0;
  // TextDocument::warning.
  virtual void Warning(std::string_view warning) = 0;
};

}  // namespace fovea::documents
