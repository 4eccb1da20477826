#include "compute/cpu/row_tiles.h"

#include <algorithm>
#include <cstring>

#include "base/status.h"
#include "compute/cpu/amx.h"
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

// sums[t] += the block's sums as floats; `at`: the block's bytes.
template <class Type, int kTokens, class SumsOf>
HWY_INLINE void AddBlock(const uint8_t* at, const QuantizedVectors& x, int64_t token, int64_t block,
                         __m512* HWY_RESTRICT sums, SumsOf sums_of) {
  const auto halves = [at](size_t offset) HWY_ATTR {
    return _mm512_cvtph_ps(
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + Type::kGroups * 64 + offset)));
  };
  const __m512 scale = halves(0);
  const __m512 offset = Type::kHasOffset ? halves(32) : scale;
#pragma GCC unroll 16
  for (int t = 0; t < kTokens; ++t) {
    const int64_t i = (token + t) * x.block_stride + block;
    const BlockSums products = sums_of(t);
    const __m512i total = _mm512_add_epi32(_mm512_slli_epi32(products.high, 7), products.low);
    sums[t] = _mm512_fmadd_ps(_mm512_mul_ps(scale, _mm512_set1_ps(x.scales[i])),
                              _mm512_cvtepi32_ps(total), sums[t]);
    if constexpr (Type::kHasOffset) {
      sums[t] = _mm512_fmadd_ps(offset, _mm512_set1_ps(x.totals[i]), sums[t]);
    }
  }
}

// What the products of a block's zero points take from its sums.
template <class Type>
HWY_INLINE __m512i StartOfLow(const QuantizedVectors& x, int64_t token, int64_t block) {
  if constexpr (Type::kZeroBits == 0) return _mm512_setzero_si512();
  return _mm512_set1_epi32(-(x.block_sums[token * x.block_stride + block] << Type::kZeroBits));
}

template <class Type, int kTokens>
HWY_INLINE void MultiplyTile(const std::byte* tile, const QuantizedVectors& x, int64_t token,
                             __m512* HWY_RESTRICT sums) {
  const auto* at = reinterpret_cast<const uint8_t*>(tile);
  const int64_t n_blocks = x.n_values / kQuantizedBlock;
  for (int64_t block = 0; block < n_blocks; ++block, at += Type::kBytes) {
    BlockSums products[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      products[t].high = _mm512_setzero_si512();
      products[t].low = StartOfLow<Type>(x, token + t, block);
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
    AddBlock<Type, kTokens>(at, x, token, block, sums, [&](int t) HWY_ATTR { return products[t]; });
  }
}

// Many vectors at once, where the processor multiplies tiles of bytes: both digits of up to 16
// vectors by a block of 16 rows, whose quanta already lie as a tile wants them.
enum StepTile : int { kHighSums, kLowSums, kOtherHighSums, kOtherLowSums, kHigh, kLow, kQuanta };

template <int kTokens>
AmxTiles ShapeAmxTiles() {
  const AmxTiles::Shape sums{kTokens, 64};
  const AmxTiles::Shape digits{kTokens, kQuantizedBlock};
  return AmxTiles({sums, sums, sums, sums, digits, digits, {kQuantizedBlock / 4, 64}, {}});
}

// A block on its way through MultiplyTileAmx.
template <int kTokens>
struct AmxBlock {
  alignas(64) uint8_t quanta[kQuantizedBlock / 4][64];
  alignas(64) int32_t high[kTokens][16];
  alignas(64) int32_t low[kTokens][16];
};

HWY_INLINE void UnpackNibbles(const uint8_t* at, uint8_t (*quanta)[64]) {
  const __m512i low_bits = _mm512_set1_epi8(15);
  for (int g = 0; g < 4; ++g) {
    _mm_prefetch(reinterpret_cast<const char*>(at) + g * 64 + kPrefetchBytes, _MM_HINT_T0);
    const __m512i bytes = _mm512_loadu_si512(at + g * 64);
    _mm512_store_si512(quanta[g], _mm512_and_si512(bytes, low_bits));
    _mm512_store_si512(quanta[4 + g], _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low_bits));
  }
}

// Both digits of vectors from `token` on by the quanta of a block, whose rows of 64 bytes lie one
// after another.
template <int kHighSumsTile, int kLowSumsTile>
HWY_INLINE void MultiplyAmx(const AmxTiles& tiles, const void* quanta, const QuantizedVectors& x,
                            int64_t token, int64_t block) {
  const int64_t i = token * x.n_values + block * kQuantizedBlock;
  tiles.Load<kHigh>(x.high + i, x.n_values);
  tiles.Load<kLow>(x.low + i, x.n_values);
  tiles.Load<kQuanta>(quanta, 64);
  tiles.Zero<kHighSumsTile>();
  tiles.Zero<kLowSumsTile>();
  tiles.AddProducts<kHighSumsTile, kHigh, kQuanta>();
  tiles.AddProducts<kLowSumsTile, kLow, kQuanta>();
}

// As MultiplyTile. What is written for a block is read a round later: read at once, each step
// would wait for the one before.
template <class Type, int kTokens>
HWY_INLINE void MultiplyTileAmx(const AmxTiles& tiles, const std::byte* tile,
                                const QuantizedVectors& x, int64_t token,
                                __m512* HWY_RESTRICT sums) {
  constexpr int64_t kOnTheWay = 4;
  AmxBlock<kTokens> blocks[kOnTheWay];
  const auto* at = reinterpret_cast<const uint8_t*>(tile);
  const int64_t n_blocks = x.n_values / kQuantizedBlock;
  for (int64_t round = 0; round < n_blocks + 3; ++round) {
    if (Type::kGroups == 4 && round < n_blocks) {
      UnpackNibbles(at + round * Type::kBytes, blocks[round % kOnTheWay].quanta);
    }
    if (const int64_t block = round - 1; 0 <= block && block < n_blocks) {
      const void* const quanta =
          Type::kGroups == 4 ? blocks[block % kOnTheWay].quanta[0] : at + block * Type::kBytes;
      if (block % 2 == 0) {
        MultiplyAmx<kHighSums, kLowSums>(tiles, quanta, x, token, block);
      } else {
        MultiplyAmx<kOtherHighSums, kOtherLowSums>(tiles, quanta, x, token, block);
      }
    }
    if (const int64_t block = round - 2; 0 <= block && block < n_blocks) {
      AmxBlock<kTokens>& of_block = blocks[block % kOnTheWay];
      if (block % 2 == 0) {
        tiles.Store<kHighSums>(of_block.high, 64);
        tiles.Store<kLowSums>(of_block.low, 64);
      } else {
        tiles.Store<kOtherHighSums>(of_block.high, 64);
        tiles.Store<kOtherLowSums>(of_block.low, 64);
      }
    }
    if (const int64_t block = round - 3; 0 <= block) {
      const AmxBlock<kTokens>& of_block = blocks[block % kOnTheWay];
      AddBlock<Type, kTokens>(
          at + block * Type::kBytes, x, token, block, sums, [&](int t) HWY_ATTR {
            return BlockSums{_mm512_load_si512(of_block.high[t]),
                             _mm512_add_epi32(_mm512_load_si512(of_block.low[t]),
                                              StartOfLow<Type>(x, token + t, block))};
          });
    }
  }
}

template <class Type, int kTokens, class MultiplyOne>
HWY_INLINE void MultiplyTiles(const MatVecArgs& args, int64_t token, int64_t begin, int64_t end,
                              MultiplyOne multiply) {
  const QuantizedVectors x = *args.quantized;
  for (int64_t row = begin; row < end; row += kTileRows) {
    __m512 sums[kTokens];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    multiply(args.weight + static_cast<size_t>(row) * args.row_bytes, x, sums);
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

template <class Type, int kTokens>
HWY_NOINLINE void MultiplyTilesVnni(const MatVecArgs& args, int64_t token, int64_t begin,
                                    int64_t end) {
  MultiplyTiles<Type, kTokens>(
      args, token, begin, end,
      [token](const std::byte* tile, const QuantizedVectors& x, __m512* sums)
          HWY_ATTR { MultiplyTile<Type, kTokens>(tile, x, token, sums); });
}

template <class Type, int kTokens>
HWY_NOINLINE void MultiplyTilesAmx(const MatVecArgs& args, int64_t token, int64_t begin,
                                   int64_t end) {
  const AmxTiles tiles = ShapeAmxTiles<kTokens>();
  MultiplyTiles<Type, kTokens>(
      args, token, begin, end,
      [&tiles, token](const std::byte* tile, const QuantizedVectors& x, __m512* sums)
          HWY_ATTR { MultiplyTileAmx<Type, kTokens>(tiles, tile, x, token, sums); });
}

template <class Type>
void MultiplyAllTokens(const MatVecArgs& args, int64_t begin, int64_t end) {
  int64_t token = 0;
  const auto run = [&](auto multiply, int64_t n) {
    for (; token + n <= args.n_tokens; token += n) multiply(args, token, begin, end);
  };
  if (HasAmxInt8()) {  // for fewer vectors a tile is no faster
    run(MultiplyTilesAmx<Type, 16>, 16);
    run(MultiplyTilesAmx<Type, 12>, 12);
    run(MultiplyTilesAmx<Type, 8>, 8);
  }
  run(MultiplyTilesVnni<Type, 4>, 4);
  run(MultiplyTilesVnni<Type, 2>, 2);
  run(MultiplyTilesVnni<Type, 1>, 1);
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
