// Windows of documents → what a memory takes of them. All windows of a batch lie one after another
// in the rows of one run of the model, so that a layer is as many ops for a hundred windows as for
// one, whatever their lengths, and no row is padding.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"
#include "compute/device.h"
#include "model/encoded_window.h"
#include "model/memory_source.h"
#include "model/model_weights.h"
#include "model/sequence.h"

namespace fovea::model {

class WindowEncoder {
 public:
  // All outlive the encoder.
  WindowEncoder(const ModelWeights& weights, compute::Device& device, Workspace* workspace)
      : weights_(weights), device_(device), work_(*workspace) {}

  // What Transformer::Encode does.
  absl::StatusOr<std::vector<EncodedWindow>> Encode(std::span<const WindowTokens> windows,
                                                    MemorySource* memory);

 private:
  // Where a window's rows lie in those of all.
  struct Place {
    int64_t first_row = 0;  // of what is stored: behind the window's context tokens
    int64_t n_rows = 0;
    int64_t first_sample = 0;
    int64_t n_samples = 0;
  };
  absl::StatusOr<std::vector<EncodedWindow>> Take(const LocalContext& context,
                                                  std::span<const Place> places);
  // The bytes of a view, in memory that the host reads: its own, or a copy that the next call
  // replaces.
  absl::StatusOr<const std::byte*> ToHost(const compute::View& view);

  const ModelWeights& weights_;
  compute::Device& device_;
  Workspace& work_;
};

}  // namespace fovea::model
