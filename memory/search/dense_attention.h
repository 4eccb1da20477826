// Attention to every key that a search may select: LongLLaMA's inference, and what an audit
// compares with.
#pragma once

#include "memory/search/searched_windows.h"
#include "model/memory_source.h"

namespace fovea::memory {

// output and lse as of MemorySource::Attend. The query fits the windows.
absl::Status AttendDensely(compute::Device& device, SearchedWindows& windows,
                           const model::MemoryQuery& query, float* output, float* lse);

}  // namespace fovea::memory
