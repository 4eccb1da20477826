#include "memory/ingest/ingested_document.h"

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

}  // namespace fovea::memory
