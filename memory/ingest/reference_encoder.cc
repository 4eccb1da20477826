#include "memory/ingest/reference_encoder.h"

#include <memory>
#include <utility>

#include "memory/search/searcher.h"

namespace fovea::memory {

absl::StatusOr<std::vector<model::EncodedWindow>> EncodeAttending(
    Memory* memory, model::Transformer* model, const IngestView& view,
    std::span<const model::WindowTokens> windows, const Progress& progress) {
  SearchOptions options;
  options.mode = SearchMode::kDense;
  options.top_k = 1;  // no sources are named
  ASSIGN_OR_RETURN(std::shared_ptr<const Generation> generation, memory->View(view));
  ASSIGN_OR_RETURN(const auto searcher,
                   MemorySearcher::Create(model->device(), std::move(generation), options));
  std::vector<model::EncodedWindow> encoded;
  for (const model::WindowTokens& window : windows) {
    RETURN_IF_ERROR(progress.CheckCancelled());
    FOVEA_CHECK(window.context.empty());
    ASSIGN_OR_RETURN(model::EncodedWindow next,
                     model->EncodeAttending(window.tokens, searcher.get()));
    searcher->AddSessionWindow(next);
    searcher->ResetMass();
    encoded.push_back(std::move(next));
  }
  return encoded;
}

}  // namespace fovea::memory
