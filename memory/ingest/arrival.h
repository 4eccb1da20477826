// A source on its way into the store.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "memory/ingest/ingested_document.h"
#include "memory/ingest/window_pool.h"
#include "storage/records.h"

namespace fovea::memory {

// With its document unless that is there already.
struct Arrival {
  std::string id;  // of the document
  storage::SourceReference reference;
  bool in_no_other_collection = false;
  IngestedDocument result;
  std::optional<storage::DocumentRecord> record;  // to be stored
  std::string robbed_id;           // of the stored document that goes with this, if any
  std::vector<StoredRange> taken;  // windows, with those that they belonged to
  bool all_windows_queued = false;
};

}  // namespace fovea::memory
