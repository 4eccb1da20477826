// CUDA's error codes as absl::Status.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "base/status.h"

namespace fovea::compute::cuda {

// "what: CUDA's words (its name)". Memory that is used up is ResourceExhausted with what to do; a
// lost or missing GPU is Unavailable; all else Internal: ops check their arguments before.
absl::Status ToStatus(cudaError_t error, std::string_view what);

}  // namespace fovea::compute::cuda

#define RETURN_IF_CUDA_ERROR(expr, what)                            \
  do {                                                              \
    if (const cudaError_t fovea_error = (expr); fovea_error != 0) { \
      return ::fovea::compute::cuda::ToStatus(fovea_error, (what)); \
    }                                                               \
  } while (false)
