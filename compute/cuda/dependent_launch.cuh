// Kernels that are made ready while the one before them in the stream ends (programmatic dependent
// launch, compute capability 9.0): what a step of hundreds of small kernels would else spend on
// starting them. Earlier GPUs run them one after another.
//
// A kernel that is launched so calls AwaitKernelBefore() before it reads what others write or
// writes anything, in every thread that does; what it reads before that never changes, or was
// written before a kernel that is not launched so (DecodeAttention's keys). It calls
// AllowNextKernel() as early as it likes: the next one waits for its end. Early is not always best:
// the blocks of the next one take room, and what they read ahead comes in the way of what this one
// still reads.
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

// cluster: blocks beside one another in x that are a cluster (compute capability 9.0); 1: none.
template <typename... Parameters, typename... Arguments>
absl::Status LaunchClusters(CudaDevice& device, std::string_view op, void (*kernel)(Parameters...),
                            dim3 grid, unsigned cluster, int block, size_t shared_bytes,
                            const Arguments&... arguments) {
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = 1;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = cluster;
  attributes[1].val.clusterDim.y = 1;
  attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(block));
  config.dynamicSmemBytes = shared_bytes;
  config.stream = device.stream();
  config.attrs = attributes;
  config.numAttrs = device.compute_capability() < 90 ? 0 : cluster > 1 ? 2 : 1;
  RETURN_IF_CUDA_ERROR(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...),
                       op);
  return absl::OkStatus();
}

template <typename... Parameters, typename... Arguments>
absl::Status LaunchDependent(CudaDevice& device, std::string_view op, void (*kernel)(Parameters...),
                             dim3 grid, int block, size_t shared_bytes,
                             const Arguments&... arguments) {
  return LaunchClusters(device, op, kernel, grid, 1, block, shared_bytes, arguments...);
}

}  // namespace fovea::compute::cuda
