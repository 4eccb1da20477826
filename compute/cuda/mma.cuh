// The tensor cores' product of bfloat16 tiles with sums in float32, and what brings tiles from
// shared memory into its registers.
//
// sums[16, 8] += a[16, 16] · b[16, 8]. Lane l holds of the sums rows l/4 (0, 1) and l/4 + 8 (2, 3),
// columns 2·(l mod 4) and the next; of a the same rows, and of b the column l/4, where a word is a
// pair of neighbours along the sixteen: pairs l mod 4 and l mod 4 + 4.
#pragma once

#include <cuda_bf16.h>

#include <cstddef>
#include <cstdint>

namespace fovea::compute::cuda {

__device__ inline void MultiplyTile(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                    float (&sums)[4]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices whose rows of 16 bytes lie at the addresses of lanes 0 … 7, 8 … 15, …: lane l
// gets of each the pair l mod 4 of row l/4.
__device__ inline void LoadMatrices(const __nv_bfloat16* row, uint32_t (&to)[4]) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}
// The same, transposed.
__device__ inline void LoadTransposed(const __nv_bfloat16* row, uint32_t (&to)[4]) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address));
}

__device__ inline uint32_t PackPair(float first, float second) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// 16 bytes to shared memory, in the background; zeros where not `is_there`.
__device__ inline void CopyAsync(const void* from, bool is_there, void* to) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
               "r"(is_there ? 16 : 0)
               : "memory");
}
__device__ inline void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// All but the last kPending groups are there, for this thread.
template <int kPending>
__device__ inline void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace fovea::compute::cuda
