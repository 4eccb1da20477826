// A commit on its way to the disk while the next windows are encoded.
#pragma once

#include <future>
#include <utility>
#include <vector>

#include "memory/ingest/ingested_document.h"
#include "memory/ingest/text_index_filler.h"
#include "memory/ingest/window_batch.h"
#include "storage/document_store.h"

namespace fovea::memory {

// Begins in the constructor, after `before` (null: nothing) has begun and only if that went well;
// the store outlives this object. `committed`, of the batch, are kept until they are asked for.
// Destroying it waits.
class BackgroundCommit {
 public:
  BackgroundCommit(storage::DocumentStore* store, const storage::StoreSettings& settings,
                   WindowBatch batch, CommittedWindows committed, const BackgroundCommit* before);
  BackgroundCommit(BackgroundCommit&&) = default;
  BackgroundCommit& operator=(BackgroundCommit&&) = default;

  // Once.
  absl::Status Wait() { return status_.get(); }
  const std::vector<IngestedDocument>& completed() const { return completed_; }
  CommittedWindows TakeCommitted() { return std::move(committed_); }

 private:
  std::vector<IngestedDocument> completed_;
  CommittedWindows committed_;
  std::shared_future<absl::Status> begun_;  // how it went to put the batch in its place
  std::future<absl::Status> status_;
};

}  // namespace fovea::memory
