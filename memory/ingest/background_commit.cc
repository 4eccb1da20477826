#include "memory/ingest/background_commit.h"

#include <memory>
#include <utility>

#include "memory/ingest/background_task.h"

namespace fovea::memory {

BackgroundCommit::BackgroundCommit(storage::DocumentStore* store,
                                   const storage::StoreSettings& settings, WindowBatch batch,
                                   CommittedWindows committed, const BackgroundCommit* before)
    : completed_(std::move(batch.completed)), committed_(std::move(committed)) {
  auto begun = std::make_shared<std::promise<absl::Status>>();
  begun_ = begun->get_future().share();
  std::shared_future<absl::Status> before_begun;
  if (before != nullptr) before_begun = before->begun_;
  status_ = InBackground([store, settings, begun, before_begun,
                          shared = std::make_shared<WindowBatch>(std::move(batch))] {
    shared->PutWindows(settings, nullptr);
    absl::Status status = before_begun.valid() ? before_begun.get() : absl::OkStatus();
    uint64_t epoch = 0;
    if (status.ok()) {
      const absl::StatusOr<uint64_t> begun_epoch = store->BeginCommit(std::move(shared->mutation));
      status = begun_epoch.status();
      if (status.ok()) epoch = *begun_epoch;
    }
    begun->set_value(status);
    return status.ok() ? store->FinishCommit(epoch) : status;
  });
}

}  // namespace fovea::memory
