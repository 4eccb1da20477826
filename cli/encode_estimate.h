// How many tokens an ingest will encode, for its progress bar: from sizes and times of files,
// before any is read, and better the more documents are done.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "memory/ingest/ingester.h"
#include "storage/records.h"

namespace fovea::cli {

// Not thread-safe.
class EncodeEstimate {
 public:
  EncodeEstimate() = default;
  // `stored`: the documents of the memory before the ingest.
  explicit EncodeEstimate(std::span<const storage::DocumentRecord> stored);

  // A file that will be read. One that the memory knows, and that was not written since its text
  // was stored, is taken for unchanged. `text_bytes` as far as its size tells.
  void AddFile(const std::string& source, uint64_t text_bytes, int64_t modified_unix_s);
  // An input of unknown size: then there is no estimate.
  void AddUnknown() { is_known_ = false; }
  // Nothing of this file is stored.
  void Skip(const std::string& source);
  // What became of a document: what was encoded of a file is known now, and of a record, what of it
  // was stored before.
  void Report(const memory::IngestedDocument& document);

  // At least 1; 0: not known.
  int64_t tokens() const;

 private:
  std::map<std::string, int64_t, std::less<>> stored_unix_s_;  // by file, of its newest text
  std::map<std::string, uint64_t, std::less<>> counted_;       // bytes of files, in text_bytes_
  uint64_t text_bytes_ = 0;
  int64_t more_tokens_ = 0;  // than text_bytes_ stand for
  bool is_known_ = true;
};

}  // namespace fovea::cli
