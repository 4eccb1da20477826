// Which windows a search may see, and how each is searched: exactly, or through the index of its
// segment.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "memory/generation.h"

namespace fovea::memory {

// A segment that is searched through its indexes.
struct IndexedSegment {
  std::shared_ptr<const Segment> segment;  // with indexes
  std::vector<uint64_t> allowed_bits;      // by slot − slot_begin; empty: everything is allowed
};

struct SearchPlan {
  std::vector<uint32_t> windows;  // allowed ones: indexes into Generation::windows, by slot
  std::vector<uint32_t> scanned;  // of those, the ones searched exactly
  std::vector<IndexedSegment> indexed;
};

// Of all windows in `scope`; without `uses_indexes` all are scanned. Errors: SelectWindows.
absl::StatusOr<SearchPlan> PlanSearch(const Generation& generation, const QueryScope& scope,
                                      bool uses_indexes);

}  // namespace fovea::memory
