// The scan of a memory's keys, the first half of exact attention to it, for others that scan some
// parts of a memory so.
#pragma once

#include "compute/cuda/cuda_device.h"
#include "compute/cuda/memory_parts.cuh"
#include "compute/dtype.h"

namespace fovea::compute::cuda {

// problem.maxima ← the best score of each tile of `parts`, whose keys are of this type; queued.
absl::Status LaunchKeyScan(CudaDevice& device, DType dtype, const Parts& parts,
                           const Problem& problem, int n_kv_heads);

}  // namespace fovea::compute::cuda
