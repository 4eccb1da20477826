// Search in a memory that lies on the device the model runs on: exact, one op a memory layer
// (compute/memory_attention.h), and nothing waits for the host.
#pragma once

#include <memory>

#include "compute/device.h"
#include "memory/generation.h"
#include "memory/search/searcher.h"

namespace fovea::memory {

// Whether Create can answer with these options: the top k (not dense attention), without an audit.
bool CanSearchOnDevice(const compute::Device& device, const SearchOptions& options);

// As MemorySearcher::Create. ResourceExhausted where the memory does not fit the device. What it
// finds is exact, whatever the mode.
absl::StatusOr<std::unique_ptr<MemorySearcher>> CreateDeviceSearcher(
    compute::Device* device, std::shared_ptr<const Generation> generation,
    const SearchOptions& options);

}  // namespace fovea::memory
