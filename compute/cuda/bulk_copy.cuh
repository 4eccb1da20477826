// Copies from global to shared memory that no thread waits for, and barriers that count their bytes
// (compute capability 9.0; on earlier GPUs nothing calls these).
#pragma once

#include <cstddef>
#include <cstdint>

namespace fovea::compute::cuda {

__device__ inline uint32_t SharedAddress(const void* shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}

// For one ExpectBytes a phase. PublishBarriers() after the last one, before any is used.
__device__ inline void InitBarrier([[maybe_unused]] uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(SharedAddress(barrier)) : "memory");
#endif
}
__device__ inline void PublishBarriers() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

// The barrier's phase ends when so many bytes have come.
__device__ inline void ExpectBytes([[maybe_unused]] uint64_t* barrier,
                                   [[maybe_unused]] uint32_t n_bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)),
      "r"(n_bytes)
      : "memory");
#endif
}

// Addresses and n_bytes: multiples of 16.
__device__ inline void CopyBulk([[maybe_unused]] std::byte* shared,
                                [[maybe_unused]] const std::byte* global,
                                [[maybe_unused]] uint32_t n_bytes,
                                [[maybe_unused]] uint64_t* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(SharedAddress(shared)),
      "l"(__cvta_generic_to_global(global)), "r"(n_bytes), "r"(SharedAddress(barrier))
      : "memory");
#endif
}

// Until the barrier's phase of this parity (0 for the first one) has ended.
__device__ inline void AwaitBarrier([[maybe_unused]] uint64_t* barrier,
                                    [[maybe_unused]] uint32_t parity) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
      "@ended bra.uni done;\n"
      "bra.uni again;\n"
      "done:\n"
      "}\n" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
#endif
}

__device__ inline bool HasEnded([[maybe_unused]] uint64_t* barrier,
                                [[maybe_unused]] uint32_t parity) {
  uint32_t has_ended = 1;
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "{\n"
      ".reg .pred ended;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 ended, [%1], %2;\n"
      "selp.u32 %0, 1, 0, ended;\n"
      "}\n"
      : "=r"(has_ended)
      : "r"(SharedAddress(barrier)), "r"(parity)
      : "memory");
#endif
  return has_ended != 0;
}

}  // namespace fovea::compute::cuda
