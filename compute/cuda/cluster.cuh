// Blocks of a cluster, which see one another's shared memory (compute capability 9.0; on earlier
// GPUs nothing calls these).
#pragma once

#include <cstdint>

namespace fovea::compute::cuda {

// What the thread wrote before, to shared memory of any block of the cluster, is seen by whoever
// waits.
__device__ inline void ArriveAtCluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
#endif
}
// Until every thread of the cluster has arrived, or ended.
__device__ inline void AwaitCluster() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
#endif
}

// Where block `rank` of the cluster has what lies at `shared` here.
template <typename T>
__device__ inline T* OfBlock(T* shared, [[maybe_unused]] unsigned rank) {
#if __CUDA_ARCH__ >= 900
  T* mapped;
  asm("mapa.u64 %0, %1, %2;" : "=l"(mapped) : "l"(shared), "r"(rank));
  return mapped;
#else
  return shared;
#endif
}

}  // namespace fovea::compute::cuda
