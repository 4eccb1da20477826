// What became of a document that was ingested.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::memory {

// kRemoved: the source is gone, and the document with it unless others refer to it.
enum class IngestStatus { kAdded, kUnchanged, kReplaced, kRemoved, kFailed };
std::string_view IngestStatusName(IngestStatus status);  // "added", …

struct IngestedDocument {
  std::string id;
  std::string title;
  std::string source;
  uint64_t tokens = 0;
  uint64_t windows = 0;
  uint64_t encoded_windows = 0;
  uint64_t encoded_tokens = 0;
  IngestStatus status = IngestStatus::kAdded;
  // kUnchanged: the text was stored, but not under this source: a file that was moved or copied.
  bool is_new_source = false;
  std::string error;
};

// One that could not be read.
IngestedDocument FailedDocument(std::string title, std::string source, const absl::Status& error);

}  // namespace fovea::memory
