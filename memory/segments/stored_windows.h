// Which windows the store holds in a range of slots: those of complete documents and of documents
// that are still being ingested, which become visible later.
#pragma once

#include <cstdint>
#include <vector>

#include "base/status.h"
#include "storage/document_store.h"

namespace fovea::memory {

struct StoredWindow {
  storage::Slot slot_begin = 0;
  uint32_t n_tokens = 0;
};

// Windows that begin in [slot_begin, slot_end), by slot, each once (an old and a new version of a
// document may link the same window). DataLoss when links contradict each other, naming them.
absl::StatusOr<std::vector<StoredWindow>> FindStoredWindows(const storage::DocumentStore& store,
                                                            storage::Slot slot_begin,
                                                            storage::Slot slot_end);

// The last slot up to `limit` that lies between windows: where a segment may end.
storage::Slot LastSlotBetween(const std::vector<StoredWindow>& windows, storage::Slot limit);

// Sum of n_tokens.
uint64_t CountTokens(const std::vector<StoredWindow>& windows);

}  // namespace fovea::memory
