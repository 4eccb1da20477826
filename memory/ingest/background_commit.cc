#include "memory/ingest/background_commit.h"

#include <memory>
#include <utility>

#include "memory/ingest/background_task.h"

namespace fovea::memory {

BackgroundCommit::BackgroundCommit(storage::DocumentStore* store,
                                   const storage::StoreSettings& settings, WindowBatch batch)
    : completed_(std::move(batch.completed)),
      status_(
          InBackground([store, settings, shared = std::make_shared<WindowBatch>(std::move(batch))] {
            shared->PutWindows(settings, nullptr);
            return store->Commit(std::move(shared->mutation));
          })) {}

}  // namespace fovea::memory
