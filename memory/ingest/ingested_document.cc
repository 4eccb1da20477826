#include "memory/ingest/ingested_document.h"

#include <utility>

namespace fovea::memory {

std::string_view IngestStatusName(IngestStatus status) {
  switch (status) {
    case IngestStatus::kAdded:
      return "added";
    case IngestStatus::kUnchanged:
      return "unchanged";
    case IngestStatus::kReplaced:
      return "replaced";
    case IngestStatus::kRemoved:
      return "removed";
    case IngestStatus::kFailed:
      return "failed";
  }
  return "failed";
}

IngestedDocument FailedDocument(std::string title, std::string source, const absl::Status& error) {
  IngestedDocument result;
  result.title = std::move(title);
  result.source = std::move(source);
  result.status = IngestStatus::kFailed;
  result.error = std::string(error.message());
  return result;
}

}  // namespace fovea::memory
