// What a memory's first ingest fixes for good: window, overlap, encoding, index, the model.
#pragma once

#include "base/status.h"
#include "memory/ingest/ingester.h"
#include "memory/memory.h"
#include "model/transformer.h"
#include "storage/records.h"

namespace fovea::memory {

// The memory's settings; the first time those that `options` and `model` ask for, stored before
// this returns. InvalidArgument for settings that make no sense, FailedPrecondition when the model
// is not the memory's, or an option contradicts what the memory was made with.
absl::StatusOr<storage::StoreSettings> AgreeOnSettings(Memory* memory,
                                                       const model::Transformer& model,
                                                       const IngestOptions& options);

// IngestOptions::encode_batch_tokens where that is left to the device.
int EncodeBatchTokens(const storage::StoreSettings& settings, const model::ModelConfig& config,
                      const compute::Device& device);

}  // namespace fovea::memory
