// Products of one row with many bytes of weights (matvec.h), which read as fast as memory gives.
#pragma once

#include <span>

#include "compute/cuda/matvec.h"

namespace fovea::compute::cuda {

// Whether LaunchStreamMatVecs takes these products of the same row: of one plain type, on a GPU
// with copies that no thread waits for, and of enough bytes for all of it.
bool TakesStreamMatVecs(const CudaDevice& device, std::span<const MatVecArgs> products,
                        const MatVecNorm& norm);
absl::Status LaunchStreamMatVecs(CudaDevice& device, std::span<const MatVecArgs> products,
                                 const MatVecNorm& norm);

}  // namespace fovea::compute::cuda
