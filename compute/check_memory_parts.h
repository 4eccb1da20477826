// How the ops that attend to a memory check what it consists of.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "compute/device.h"
#include "compute/memory_attention.h"
#include "compute/view.h"

namespace fovea::compute {

// InvalidArgument where queries, output and lse do not fit each other, or top_k is out of range;
// the output may be none where `has_kept`: positions and scores are given.
absl::Status CheckMemoryQueries(const Device& device, std::string_view op, const ConstView& queries,
                                const View& output, const View& lse, int top_k, bool has_kept);

// InvalidArgument where a part does not fit the queries or `first`, the first of all parts; adds
// its tokens to *n_tokens, which must stay below 2³¹. Values may be none unless they are wanted.
absl::Status CheckMemoryPart(const Device& device, std::string_view op, const ConstView& queries,
                             const MemoryPart& first, const MemoryPart& part, bool wants_values,
                             int64_t* n_tokens);

// InvalidArgument for no parts, and for too many.
absl::Status CheckNumMemoryParts(std::string_view op, size_t n_parts);

}  // namespace fovea::compute
