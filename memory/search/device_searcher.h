// Search in a memory that lies where the device reads it that the model runs on, one op a memory
// layer, and nothing waits for the host: exact (compute/memory_attention.h), or by codes of the
// keys (compute/coded_memory_attention.h), as memory/residency_plan.h says, or densely
// (device_dense_attention.h). FAISS's indexes are searched by calls of the host's, which wait for
// nothing either, but cannot be recorded. Where values stay in the store the host waits for the
// positions of the keys that were kept, reads their values, and the device attends to them; audits
// wait, too.
#pragma once

#include <memory>

#include "compute/device.h"
#include "memory/generation.h"
#include "memory/search/searcher.h"

namespace fovea::memory {

// Whether Create can answer with these options.
bool CanSearchOnDevice(const compute::Device& device, const SearchOptions& options);

// As MemorySearcher::Create. ResourceExhausted where the memory does not fit the device (for dense
// attention and audits: all its keys and values); Unimplemented for dense attention to tokens that
// lie in more than kMaxDenseRuns pieces.
absl::StatusOr<std::unique_ptr<MemorySearcher>> CreateDeviceSearcher(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options);

}  // namespace fovea::memory
