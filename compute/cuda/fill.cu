#include "compute/cuda/cuda_device.h"
#include "compute/cuda/elementwise.cuh"

namespace fovea::compute::cuda {
namespace {

__global__ void FillKernel(float value, int64_t n, float* to) {
  FOVEA_FOR_EACH_ELEMENT(i, n) to[i] = value;
}

}  // namespace

// All kernels are built for the same GPUs: one speaks for them.
cudaError_t FindKernels() {
  cudaFuncAttributes attributes;
  const cudaError_t error = cudaFuncGetAttributes(&attributes, FillKernel);
  cudaGetLastError();  // it is told by who asks
  return error;
}

void LaunchFill(float value, int64_t n, float* to, cudaStream_t stream) {
  FillKernel<<<ElementBlocks(n), kElementThreads, 0, stream>>>(value, n, to);
}

}  // namespace fovea::compute::cuda
