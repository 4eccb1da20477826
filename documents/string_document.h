// A document whose text is held in memory: HTML pages, JSONL records, callers' own strings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "documents/text_document.h"
#include "documents/utf8.h"

namespace fovea::documents {

class StringDocument final : public TextDocument {
 public:
  explicit StringDocument(std::string text);

  absl::Status Read(size_t max_bytes, std::string* out) override;
  absl::Status Rewind() override;
  uint64_t size_bytes() const override { return file_size_bytes_; }
  // Of the file that the text comes from, when it is not the text's own.
  void set_size_bytes(uint64_t size_bytes) { file_size_bytes_ = size_bytes; }

 private:
  std::string text_;
  size_t start_ = 0;  // behind a byte-order mark
  size_t at_ = 0;
  size_t valid_end_ = 0;
  uint64_t file_size_bytes_ = 0;
};

}  // namespace fovea::documents
