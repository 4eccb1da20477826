// CUDA's error codes as absl::Status, and why there is no GPU to use, for people. Nothing here asks
// a GPU.
#pragma once

#include <cuda_runtime.h>

#include <string_view>

#include "base/status.h"

namespace fovea::compute::cuda {

// "what: CUDA's words (its name): what to do". Memory that is used up is ResourceExhausted; a GPU
// or a driver that cannot be used, or is used by another process alone, is Unavailable; all else
// Internal: ops check their arguments before.
absl::Status ToStatus(cudaError_t error, std::string_view what);

// What a process is told about the GPUs of its machine.
struct GpuSurroundings {
  int driver_version = 0;              // as of cudaDriverGetVersion; 0: there is no driver
  const char* visible_gpus = nullptr;  // CUDA_VISIBLE_DEVICES; null: it is not set
};

// Why no GPU can be used, from what CUDA answers when it is asked how many there are. Unavailable.
absl::Status ExplainNoGpu(cudaError_t error, const GpuSurroundings& surroundings);

// A GPU that is not among the `n_gpus` (1 or more) that CUDA counts. NotFound.
absl::Status ExplainNoSuchGpu(int number, int n_gpus, const GpuSurroundings& surroundings);

}  // namespace fovea::compute::cuda

#define RETURN_IF_CUDA_ERROR(expr, what)                            \
  do {                                                              \
    if (const cudaError_t fovea_error = (expr); fovea_error != 0) { \
      return ::fovea::compute::cuda::ToStatus(fovea_error, (what)); \
    }                                                               \
  } while (false)
