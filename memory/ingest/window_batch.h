// Windows of one commit, and how they become records.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/thread_pool.h"
#include "memory/ingest/ingested_document.h"
#include "model/encoded_window.h"
#include "storage/document_store.h"

namespace fovea::memory {

// A window that waits for its commit.
struct QueuedWindow {
  storage::WindowLink link;
  std::optional<storage::WindowRecord> window;  // unset: stored already
};

// What a commit holds.
struct WindowBatch {
  // What is to be encoded. Points into `windows`.
  std::vector<model::WindowTokens> TokensToEncode() const;
  // Puts the windows and what was encoded of them into `mutation` (links, windows, blocks, query
  // samples), and has none of them any more. `threads`: of whom nobody else has need; null: the
  // calling one does it alone.
  void PutWindows(const storage::StoreSettings& settings, ThreadPool* threads);

  std::vector<QueuedWindow> windows;
  // Of those that have a window, in their order; none where the model has no memory layers.
  std::vector<model::EncodedWindow> encoded;
  int64_t n_encoded_tokens = 0;
  storage::Mutation mutation;
  std::vector<IngestedDocument> completed;  // documents that the commit makes durable
};

}  // namespace fovea::memory
