// LongLLaMA's own encoding of documents: each window attends to everything in the memory before it,
// and to the windows of its document so far (model/reference_session.h). A document depends on what
// was ingested before it; what is deleted later has been seen.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::memory {

// Windows without context tokens, in the order of the text, one after the other. `generation`: the
// memory with what is in the store already and belongs to the documents that the windows are of.
// Dense attention: time grows with the size of the memory.
absl::StatusOr<std::vector<model::EncodedWindow>> EncodeAttending(
    const model::Transformer& model, compute::Device* device,
    std::shared_ptr<const Generation> generation, std::span<const model::WindowTokens> windows,
    model::Workspace* workspace, const Progress& progress);

}  // namespace fovea::memory
