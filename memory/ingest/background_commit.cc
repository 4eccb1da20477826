#include "memory/ingest/background_commit.h"

#include <memory>
#include <system_error>
#include <utility>

namespace fovea::memory {

BackgroundCommit::BackgroundCommit(storage::DocumentStore* store, storage::Mutation mutation,
                                   std::vector<IngestedDocument> completed)
    : completed_(std::move(completed)) {
  const auto write = [store, shared = std::make_shared<storage::Mutation>(std::move(mutation))] {
    return store->Commit(std::move(*shared));
  };
  try {
    status_ = std::async(std::launch::async, write);
  } catch (const std::system_error&) {  // no thread to be had: then without one
    status_ = std::async(std::launch::deferred, write);
  }
}

}  // namespace fovea::memory
