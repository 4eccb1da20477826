#include "compute/cpu/row_tiles.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/row_tiles.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86

// The memory is read ahead by so much: what a core waits for, at the rate at which it reads.
constexpr size_t kPrefetchBytes = 2048;

template <int kZeroBitsOfType, bool kHasOffsetOfType>
struct NibbleTile {
  static constexpr int kZeroBits =
      kZeroBitsOfType;  // value = scale · (quantum − 2^kZeroBits), 0: no
  static constexpr bool kHasOffset = kHasOffsetOfType;
  static constexpr int kGroups = 4;  // vectors of quanta of a block
  static constexpr size_t kBytes = kGroups * 64 + 32 + (kHasOffset ? 32 : 0);
};
struct ByteTile {
  static constexpr int kZeroBits = 7;
  static constexpr bool kHasOffset = false;
  static constexpr int kGroups = 8;
  static constexpr size_t kBytes = kGroups * 64 + 32;
};

// sum + products of four quanta of each row and the four digits at `digits`. The instruction reads
// them itself: as one with the load, which it is with an address in one register only, it takes a
// slot where two would be taken, and slots are what limits products with several vectors.
HWY_INLINE __m512i AddVnni(__m512i sum, __m512i quanta, const int8_t* digits) {
  using Four = const int8_t[4];
  asm("%{evex%} vpdpbusd (%2)%{1to16%}, %1, %0"
      : "+v"(sum)
      : "v"(quanta), "r"(digits), "m"(*reinterpret_cast<Four*>(digits)));
  return sum;
}

// Sums of a block of 16 rows, in two digits: high · 128 + low.
struct BlockSums {
  __m512i high, low;
};

template <class Type, int kTokens>
HWY_INLINE void MultiplyTile(const std::byte* tile, const QuantizedVectors& x, int64_t token,
                             __m512* HWY_RESTRICT sums) {
  const auto* at = reinterpret_cast<const uint8_t*>(tile);
  const int64_t n_blocks = x.n_values / kQuantizedBlock;
  for (int64_t block = 0; block < n_blocks; ++block, at += Type::kBytes) {
    BlockSums products[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      products[t].high = _mm512_setzero_si512();
      products[t].low = _mm512_setzero_si512();
      if constexpr (Type::kZeroBits != 0) {
        products[t].low = _mm512_set1_epi32(
            -(x.block_sums[(token + t) * x.block_stride + block] << Type::kZeroBits));
      }
    }
    const auto add = [&](__m512i quanta, int64_t value) HWY_ATTR {
      for (int t = 0; t < kTokens; ++t) {
        const int64_t i = (token + t) * x.n_values + block * kQuantizedBlock + value;
        products[t].high = AddVnni(products[t].high, quanta, x.high + i);
        products[t].low = AddVnni(products[t].low, quanta, x.low + i);
      }
    };
    for (int g = 0; g < Type::kGroups; ++g) {
      _mm_prefetch(reinterpret_cast<const char*>(at) + g * 64 + kPrefetchBytes, _MM_HINT_T0);
      const __m512i bytes = _mm512_loadu_si512(at + g * 64);
      if constexpr (Type::kGroups == 4) {
        const __m512i low_bits = _mm512_set1_epi8(15);
        add(_mm512_and_si512(bytes, low_bits), 4 * g);
        add(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_bits), 16 + 4 * g);
      } else {
        add(bytes, 4 * g);
      }
    }
    const auto halves = [at](size_t offset) HWY_ATTR {
      return _mm512_cvtph_ps(
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + Type::kGroups * 64 + offset)));
    };
    const __m512 scale = halves(0);
    for (int t = 0; t < kTokens; ++t) {
      const int64_t i = (token + t) * x.block_stride + block;
      const __m512i total =
          _mm512_add_epi32(_mm512_slli_epi32(products[t].high, 7), products[t].low);
      sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(x.scales[i])),
                                _mm512_cvtepi32_ps(total), sums[t]);
      if constexpr (Type::kHasOffset) {
        sums[t] = _mm512_fmadd_ps(halves(32), _mm512_set1_ps(x.totals[i]), sums[t]);
      }
    }
  }
}

template <class Type, int kTokens>
HWY_NOINLINE void MultiplyTiles(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end) {
  const QuantizedVectors x = *args.quantized;
  for (int64_t row = begin; row < end; row += kTileRows) {
    __m512 sums[kTokens];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    MultiplyTile<Type, kTokens>(args.weight + static_cast<size_t>(row) * args.row_bytes, x, token,
                                sums);
    if (args.lora_b != nullptr) {
      const float* b = reinterpret_cast<const float*>(args.lora_b) + row * args.lora_rank;
      for (int64_t r = 0; r < args.lora_rank; ++r) {
        const __m512 factors = _mm512_loadu_ps(b + r * kTileRows);
        for (int t = 0; t < kTokens; ++t) {
          sums[t] = _mm512_fmadd_ps(
              factors, _mm512_set1_ps(args.lora_u[(token + t) * args.lora_rank + r]), sums[t]);
        }
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      float* out = args.out + (token + t) * args.out_features + row;
      if (args.bias != nullptr) sums[t] = _mm512_add_ps(sums[t], _mm512_loadu_ps(args.bias + row));
      if (args.add_to_out) sums[t] = _mm512_add_ps(sums[t], _mm512_loadu_ps(out));
      _mm512_storeu_ps(out, sums[t]);
    }
  }
}

template <class Type>
void MultiplyAllTokens(const MatVecArgs& args, int64_t begin, int64_t end) {
  int64_t token = 0;
  for (; token + 4 <= args.n_tokens; token += 4) MultiplyTiles<Type, 4>(args, token, begin, end);
  for (; token + 2 <= args.n_tokens; token += 2) MultiplyTiles<Type, 2>(args, token, begin, end);
  if (token < args.n_tokens) MultiplyTiles<Type, 1>(args, token, begin, end);
}

void MultiplyRowTilesImpl(const MatVecArgs& args, int64_t begin, int64_t end) {
  switch (args.dtype) {
    case DType::kQ4_0:
      return MultiplyAllTokens<NibbleTile<3, false>>(args, begin, end);
    case DType::kQ4_1:
      return MultiplyAllTokens<NibbleTile<0, true>>(args, begin, end);
    default:
      return MultiplyAllTokens<ByteTile>(args, begin, end);
  }
}

bool HasKernelImpl() { return HasAvx512Vnni(); }

#else

void MultiplyRowTilesImpl(const MatVecArgs& /*args*/, int64_t /*begin*/, int64_t /*end*/) {
  FOVEA_CHECK(false);  // HasKernelImpl says so
}

bool HasKernelImpl() { return false; }

#endif  // HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(MultiplyRowTilesImpl);
HWY_EXPORT(HasKernelImpl);

bool HasRowTiles(DType dtype, int64_t out_features, int64_t in_features) {
  return (dtype == DType::kQ4_0 || dtype == DType::kQ4_1 || dtype == DType::kQ8_0) &&
         out_features % kTileRows == 0 && in_features % kQuantizedBlock == 0 &&
         HWY_DYNAMIC_DISPATCH(HasKernelImpl)();
}

namespace {

// kHalves: scales and offsets before the quanta of a stored block; kFlip: xored with four quanta.
template <size_t kBlockBytes, size_t kHalves, uint32_t kFlip>
void PackTile(const std::byte* rows, size_t row_bytes, std::byte* out) {
  constexpr size_t kGroups = (kBlockBytes - 2 * kHalves) / 4;
  for (size_t b = 0; b < row_bytes; b += kBlockBytes, out += kTileRows * kBlockBytes) {
    for (size_t row = 0; row < kTileRows; ++row) {
      const std::byte* block = rows + row * row_bytes + b;
      for (size_t h = 0; h < kHalves; ++h) {
        std::memcpy(out + kGroups * 64 + h * 32 + row * 2, block + h * 2, 2);
      }
      for (size_t g = 0; g < kGroups; ++g) {
        uint32_t four;
        std::memcpy(&four, block + kHalves * 2 + g * 4, 4);
        four ^= kFlip;
        std::memcpy(out + g * 64 + row * 4, &four, 4);
      }
    }
  }
}

}  // namespace

void PackRowTiles(DType dtype, const std::byte* weight, size_t row_bytes, int64_t first_tile,
                  int64_t end_tile, std::byte* tiles) {
  for (int64_t tile = first_tile; tile < end_tile; ++tile) {
    const size_t at = static_cast<size_t>(tile) * kTileRows * row_bytes;
    switch (dtype) {
      case DType::kQ4_0:
        PackTile<18, 1, 0>(weight + at, row_bytes, tiles + at);
        break;
      case DType::kQ4_1:
        PackTile<20, 2, 0>(weight + at, row_bytes, tiles + at);
        break;
      default:
        PackTile<34, 1, 0x80808080>(weight + at, row_bytes, tiles + at);
    }
  }
}

void MultiplyRowTiles(const MatVecArgs& args, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(MultiplyRowTilesImpl)(args, begin, end);
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
