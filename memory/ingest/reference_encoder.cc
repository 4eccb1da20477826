#include "memory/ingest/reference_encoder.h"

#include <memory>
#include <utility>

#include "memory/search/searcher.h"

namespace fovea::memory {

absl::StatusOr<std::vector<model::EncodedWindow>> EncodeAttending(
    const model::Transformer& model, compute::Device* device,
    std::shared_ptr<const Generation> generation, std::span<const model::WindowTokens> windows,
    model::Workspace* workspace, const Progress& progress) {
  SearchOptions options;
  options.mode = SearchMode::kDense;
  options.top_k = 1;  // no sources are named
  // On the host, whatever the device: a GPU would load what is not sealed yet again for each batch.
  ASSIGN_OR_RETURN(const auto searcher,
                   MemorySearcher::Create(&device->host(), std::move(generation), options));
  std::vector<model::EncodedWindow> encoded;
  for (const model::WindowTokens& window : windows) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    FOVEA_CHECK(window.context.empty());
    ASSIGN_OR_RETURN(std::vector<model::EncodedWindow> next,
                     model.Encode(*device, {&window, 1}, searcher.get(), workspace));
    searcher->AddSessionWindow(next[0]);
    searcher->ResetMass();
    encoded.push_back(std::move(next[0]));
  }
  return encoded;
}

}  // namespace fovea::memory
