// Kernels that are made ready while the one before them in the stream ends (programmatic dependent
// launch, compute capability 9.0): what a step of hundreds of small kernels would else spend on
// starting them. Earlier GPUs run them one after another.
//
// A kernel that is launched so calls AwaitKernelBefore() before it reads what others write or
// writes anything, in every thread that does; what it reads before that never changes. It calls
// AllowNextKernel() as early as it likes: the next one waits for its end.
#pragma once

#include "compute/cuda/check.h"
#include "compute/cuda/cuda_device.h"

namespace fovea::compute::cuda {

__device__ inline void AllowNextKernel() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ inline void AwaitKernelBefore() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}

template <typename... Parameters, typename... Arguments>
absl::Status LaunchDependent(CudaDevice& device, std::string_view op, void (*kernel)(Parameters...),
                             dim3 grid, int block, size_t shared_bytes,
                             const Arguments&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(block));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = device.stream();
  config.attrs = &attribute;
  config.numAttrs = device.compute_capability() >= 90 ? 1 : 0;
  RETURN_IF_CUDA_ERROR(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
                       op);
  return absl::OkStatus();
}

}  // namespace fovea::compute::cuda
