// Stored values (compute/dtype.h) → floats, in a kernel.
//
// Eight values at a time, a *chunk*: two runs of four that lie beside one another in the bytes of a
// block, low and high nibbles of the same bytes for most types. A row of n values, a multiple of
// eight for plain types, has n / 8 chunks. Reads are as wide as the type's blocks are aligned.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>

#include "compute/dtype.h"

namespace fovea::compute::cuda {

struct Chunk {
  int first;   // values[0 … 4) are values first … first + 3 of the row,
  int second;  // values[4 … 8) are values second … second + 3
  float values[8];
};

__device__ inline float HalfAt(const std::byte* at) {
  return __half2float(*reinterpret_cast<const __half*>(at));
}
__device__ inline uint32_t Word16(const std::byte* at) {
  return *reinterpret_cast<const uint16_t*>(at);
}
// Of addresses that are aligned to two bytes only.
__device__ inline uint32_t Word32(const std::byte* at) { return Word16(at) | Word16(at + 2) << 16; }
// a·b + c rounded twice, as a CPU dequantises.
__device__ inline float ScaleAndAdd(float a, float b, float c) {
  return __fadd_rn(__fmul_rn(a, b), c);
}
__device__ inline uint32_t Byte(uint32_t word, int i) { return word >> (8 * i) & 255; }

// Sixteen bytes that are read once: nothing else is driven out of the first cache for them.
__device__ inline uint4 LoadOnce(const std::byte* at) {
  uint4 words;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
      : "l"(at));
  return words;
}

// Chunk `chunk` of a row of a plain type from its stored words.
template <DType kType>
__device__ inline Chunk ChunkOf(const uint4& words, int chunk) {
  Chunk c{8 * chunk, 8 * chunk + 4, {}};
  const uint32_t pairs[] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if constexpr (kType == DType::kF16) {
      const float2 two = __half22float2(*reinterpret_cast<const __half2*>(&pairs[i]));
      c.values[2 * i] = two.x;
      c.values[2 * i + 1] = two.y;
    } else {
      static_assert(kType == DType::kBF16);
      c.values[2 * i] = __uint_as_float(pairs[i] << 16);
      c.values[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
  }
  return c;
}
// The same, where its bytes lie in memory of any kind.
template <DType kType>
__device__ inline Chunk ChunkAt(const std::byte* at, int chunk) {
  if constexpr (kType == DType::kF32) {
    const auto* const quads = reinterpret_cast<const float4*>(at);
    const float4 a = quads[0];
    const float4 b = quads[1];
    return {8 * chunk, 8 * chunk + 4, {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
  } else {
    return ChunkOf<kType>(*reinterpret_cast<const uint4*>(at), chunk);
  }
}

template <DType kType>
__device__ Chunk LoadChunk(const std::byte* row, int chunk);

template <>
__device__ inline Chunk LoadChunk<DType::kF32>(const std::byte* row, int chunk) {
  return ChunkAt<DType::kF32>(row + 32 * static_cast<int64_t>(chunk), chunk);
}

template <>
__device__ inline Chunk LoadChunk<DType::kF16>(const std::byte* row, int chunk) {
  return ChunkOf<DType::kF16>(LoadOnce(row + 16 * static_cast<int64_t>(chunk)), chunk);
}

template <>
__device__ inline Chunk LoadChunk<DType::kBF16>(const std::byte* row, int chunk) {
  return ChunkOf<DType::kBF16>(LoadOnce(row + 16 * static_cast<int64_t>(chunk)), chunk);
}

// Blocks of 32 values have four chunks.
template <>
__device__ inline Chunk LoadChunk<DType::kQ4_0>(const std::byte* row, int chunk) {
  const int block = chunk / 4, part = chunk % 4;
  const std::byte* const at = row + 18 * block;
  const float d = HalfAt(at);
  const uint32_t q = Word32(at + 2 + 4 * part);
  Chunk c{32 * block + 4 * part, 32 * block + 16 + 4 * part, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] = d * (static_cast<int>(Byte(q, i) & 15) - 8);
    c.values[4 + i] = d * (static_cast<int>(Byte(q, i) >> 4) - 8);
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ4_1>(const std::byte* row, int chunk) {
  const int block = chunk / 4, part = chunk % 4;
  const std::byte* const at = row + 20 * block;
  const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(at));
  const uint32_t q = *reinterpret_cast<const uint32_t*>(at + 4 + 4 * part);
  Chunk c{32 * block + 4 * part, 32 * block + 16 + 4 * part, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] = ScaleAndAdd(dm.x, static_cast<float>(Byte(q, i) & 15), dm.y);
    c.values[4 + i] = ScaleAndAdd(dm.x, static_cast<float>(Byte(q, i) >> 4), dm.y);
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ5_0>(const std::byte* row, int chunk) {
  const int block = chunk / 4, part = chunk % 4;
  const std::byte* const at = row + 22 * block;
  const float d = HalfAt(at);
  const uint32_t h = Word32(at + 2) >> (4 * part);
  const uint32_t q = Word32(at + 6 + 4 * part);
  Chunk c{32 * block + 4 * part, 32 * block + 16 + 4 * part, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] = d * (static_cast<int>((Byte(q, i) & 15) + (h >> i & 1) * 16) - 16);
    c.values[4 + i] = d * (static_cast<int>((Byte(q, i) >> 4) + (h >> (16 + i) & 1) * 16) - 16);
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ5_1>(const std::byte* row, int chunk) {
  const int block = chunk / 4, part = chunk % 4;
  const std::byte* const at = row + 24 * block;
  const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(at));
  const uint32_t h = *reinterpret_cast<const uint32_t*>(at + 4) >> (4 * part);
  const uint32_t q = *reinterpret_cast<const uint32_t*>(at + 8 + 4 * part);
  Chunk c{32 * block + 4 * part, 32 * block + 16 + 4 * part, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] =
        ScaleAndAdd(dm.x, static_cast<float>((Byte(q, i) & 15) + (h >> i & 1) * 16), dm.y);
    c.values[4 + i] =
        ScaleAndAdd(dm.x, static_cast<float>((Byte(q, i) >> 4) + (h >> (16 + i) & 1) * 16), dm.y);
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ8_0>(const std::byte* row, int chunk) {
  const int block = chunk / 4, part = chunk % 4;
  const std::byte* const at = row + 34 * block;
  const float d = HalfAt(at);
  const uint32_t q[] = {Word32(at + 2 + 8 * part), Word32(at + 6 + 8 * part)};
  Chunk c{32 * block + 8 * part, 32 * block + 8 * part + 4, {}};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    c.values[i] = d * static_cast<float>(static_cast<int8_t>(Byte(q[i / 4], i % 4)));
  }
  return c;
}

// Blocks of 256 values have 32 chunks. `packed`: the 12 bytes of scales of Q4_K and Q5_K, aligned
// to four bytes.
struct KScales {
  float scale, offset;
};
__device__ inline KScales ScaleOf(const std::byte* packed, int part) {
  const auto at = [&](int i) { return static_cast<uint32_t>(packed[i]); };
  if (part < 4) return {static_cast<float>(at(part) & 63), static_cast<float>(at(part + 4) & 63)};
  return {static_cast<float>((at(part + 4) & 15) | at(part - 4) >> 6 << 4),
          static_cast<float>(at(part + 4) >> 4 | at(part) >> 6 << 4)};
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ4_K>(const std::byte* row, int chunk) {
  const int block = chunk / 32, pair = chunk % 32 / 8, j = chunk % 8 * 4;
  const std::byte* const at = row + 144 * static_cast<int64_t>(block);
  const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(at));
  const KScales low = ScaleOf(at + 4, 2 * pair);
  const KScales high = ScaleOf(at + 4, 2 * pair + 1);
  const uint32_t q = *reinterpret_cast<const uint32_t*>(at + 16 + 32 * pair + j);
  Chunk c{256 * block + 64 * pair + j, 256 * block + 64 * pair + 32 + j, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] = dm.x * low.scale * static_cast<float>(Byte(q, i) & 15) - dm.y * low.offset;
    c.values[4 + i] = dm.x * high.scale * static_cast<float>(Byte(q, i) >> 4) - dm.y * high.offset;
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ5_K>(const std::byte* row, int chunk) {
  const int block = chunk / 32, pair = chunk % 32 / 8, j = chunk % 8 * 4;
  const std::byte* const at = row + 176 * static_cast<int64_t>(block);
  const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(at));
  const KScales low = ScaleOf(at + 4, 2 * pair);
  const KScales high = ScaleOf(at + 4, 2 * pair + 1);
  const uint32_t h = *reinterpret_cast<const uint32_t*>(at + 16 + j) >> (2 * pair);
  const uint32_t q = *reinterpret_cast<const uint32_t*>(at + 48 + 32 * pair + j);
  Chunk c{256 * block + 64 * pair + j, 256 * block + 64 * pair + 32 + j, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    c.values[i] =
        dm.x * low.scale * static_cast<float>((Byte(q, i) & 15) + (h >> (8 * i) & 1) * 16) -
        dm.y * low.offset;
    c.values[4 + i] =
        dm.x * high.scale * static_cast<float>((Byte(q, i) >> 4) + (h >> (8 * i + 1) & 1) * 16) -
        dm.y * high.offset;
  }
  return c;
}

template <>
__device__ inline Chunk LoadChunk<DType::kQ6_K>(const std::byte* row, int chunk) {
  const int block = chunk / 32, half = chunk % 32 / 16, odd = chunk % 16 / 8, j = chunk % 8 * 4;
  const std::byte* const at = row + 210 * static_cast<int64_t>(block);
  const float d = HalfAt(at + 208);
  const uint32_t q = Word32(at + 64 * half + 32 * odd + j);
  const uint32_t h = Word32(at + 128 + 32 * half + j);
  // Parts `odd` (low nibbles) and `odd` + 2 (high) of this half of the block.
  const int first = 128 * half + 32 * odd + j;
  const int second = first + 64;
  const auto scale_of = [&](int value) {
    return d * static_cast<float>(static_cast<int8_t>(at[192 + value / 16]));
  };
  const float low = scale_of(first);
  const float high = scale_of(second);
  Chunk c{256 * block + first, 256 * block + second, {}};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint32_t bits = Byte(h, i);
    c.values[i] = low * (static_cast<int>((Byte(q, i) & 15) + (bits >> (2 * odd) & 3) * 16) - 32);
    c.values[4 + i] =
        high * (static_cast<int>((Byte(q, i) >> 4) + (bits >> (2 * odd + 4) & 3) * 16) - 32);
  }
  return c;
}

// sum += <c, what it is multiplied with>: a of its first values, b of its second ones. One order
// and one rounding a step, whichever kernel it is part of.
__device__ inline void AddChunk(const Chunk& c, const float4& a, const float4& b, float& sum) {
  sum = __fmaf_rn(c.values[0], a.x, sum);
  sum = __fmaf_rn(c.values[1], a.y, sum);
  sum = __fmaf_rn(c.values[2], a.z, sum);
  sum = __fmaf_rn(c.values[3], a.w, sum);
  sum = __fmaf_rn(c.values[4], b.x, sum);
  sum = __fmaf_rn(c.values[5], b.y, sum);
  sum = __fmaf_rn(c.values[6], b.z, sum);
  sum = __fmaf_rn(c.values[7], b.w, sum);
}

// One value of a plain type, however the row is aligned.
template <DType kType>
__device__ inline float LoadPlain(const std::byte* row, int i) {
  if constexpr (kType == DType::kF32) {
    return reinterpret_cast<const float*>(row)[i];
  } else if constexpr (kType == DType::kF16) {
    return __half2float(reinterpret_cast<const __half*>(row)[i]);
  } else {
    static_assert(kType == DType::kBF16);
    return __bfloat162float(reinterpret_cast<const __nv_bfloat16*>(row)[i]);
  }
}

constexpr bool IsPlain(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// Whether rows of n values are read in chunks: quantised ones always, plain ones where each row is
// aligned for it.
inline bool HasChunks(DType dtype, int64_t n, const void* data) {
  return !IsPlain(dtype) || (n % 8 == 0 && reinterpret_cast<uintptr_t>(data) % 16 == 0);
}

// visit.operator()<kType>() for the type of the stored values.
template <typename Visit>
void VisitDType(DType dtype, Visit visit) {
  switch (dtype) {
    case DType::kF32:
      return visit.template operator()<DType::kF32>();
    case DType::kF16:
      return visit.template operator()<DType::kF16>();
    case DType::kBF16:
      return visit.template operator()<DType::kBF16>();
    case DType::kQ4_0:
      return visit.template operator()<DType::kQ4_0>();
    case DType::kQ4_1:
      return visit.template operator()<DType::kQ4_1>();
    case DType::kQ5_0:
      return visit.template operator()<DType::kQ5_0>();
    case DType::kQ5_1:
      return visit.template operator()<DType::kQ5_1>();
    case DType::kQ8_0:
      return visit.template operator()<DType::kQ8_0>();
    case DType::kQ4_K:
      return visit.template operator()<DType::kQ4_K>();
    case DType::kQ5_K:
      return visit.template operator()<DType::kQ5_K>();
    case DType::kQ6_K:
      return visit.template operator()<DType::kQ6_K>();
  }
}

}  // namespace fovea::compute::cuda
