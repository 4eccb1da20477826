// Blocks of quantised weights (compute/dtype.h) as vectors of small unsigned integers with a scale
// and an offset: value[i] = scale·(q[i] − kZero) + offset. Included once for each instruction set,
// within kernels.
//
// Each type has
//   kZero              subtracted from every q
//   kHalves            whether the halves of 32 values have scales of their own
//   kHasOffset
//   Scales(row, first_block, n_blocks, scale, offset)
//                      of n_blocks blocks of 32 values; first_block is a multiple of 8;
//                      scale [n_blocks · (kHalves ? 2 : 1)], offset [n_blocks] where there is one
//   Quanta(row, block, i)
//                      values [i, i + kByteLanes) of a block of 32, as they are stored
#include <cstdint>
#include <cstring>

#include "base/float16.h"
#include "compute/dtype.h"

#if defined(FOVEA_COMPUTE_CPU_STORED_BLOCKS) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_COMPUTE_CPU_STORED_BLOCKS
#undef FOVEA_COMPUTE_CPU_STORED_BLOCKS
#else
#define FOVEA_COMPUTE_CPU_STORED_BLOCKS
#endif

#include "hwy/highway.h"

// Not for single lanes: kernels use DequantizeRow there.
#if HWY_TARGET != HWY_SCALAR
HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace blocks {
namespace hn = hwy::HWY_NAMESPACE;

// A block of 32 bytes is the widest vector that the layouts suit; 256 bits are what most
// processors multiply at a time in any case.
using D8 = hn::CappedTag<uint8_t, 32>;
using V8 = hn::Vec<D8>;
constexpr int64_t kByteLanes = hn::MaxLanes(D8());

HWY_INLINE const uint8_t* Bytes(const std::byte* bytes) {
  return reinterpret_cast<const uint8_t*>(bytes);
}

// halves [n] → floats [n]; both may be read and written up to the next multiple of 8.
HWY_INLINE void HalvesToFloats(const uint16_t* halves, int64_t n, float* HWY_RESTRICT floats) {
  const hn::CappedTag<float, 8> d;
  const hn::Rebind<uint16_t, decltype(d)> du16;
  const hn::Rebind<hwy::float16_t, decltype(d)> d16;
  for (int64_t i = 0; i < n; i += static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(hn::PromoteTo(d, hn::BitCast(d16, hn::LoadU(du16, halves + i))), d, floats + i);
  }
}

// Blocks that Scales may be asked for at once.
constexpr int64_t kMaxBlocks = 32;

template <size_t kBlockBytes>
HWY_INLINE void LoadHalves(const std::byte* first, int64_t n_blocks, float* HWY_RESTRICT floats) {
  HWY_ALIGN uint16_t halves[kMaxBlocks];
  for (int64_t b = 0; b < n_blocks; ++b) {
    std::memcpy(halves + b, first + static_cast<size_t>(b) * kBlockBytes, 2);
  }
  for (int64_t b = n_blocks; b % 8 != 0; ++b) halves[b] = 0;  // sums run over whole vectors
  HalvesToFloats(halves, n_blocks, floats);
}

// 16 bytes → nibbles: values [i, i + kByteLanes) of 32, of which the first 16 are the low ones.
HWY_INLINE V8 Nibbles(const uint8_t* bytes, int64_t i) {
  const D8 d8;
  const auto low_bits = hn::Set(d8, uint8_t{15});
#if HWY_TARGET <= HWY_AVX2
  (void)i;
  const hn::Repartition<uint64_t, D8> d64;
  alignas(32) static constexpr uint64_t kShifts[4] = {0, 0, 4, 4};
  const auto twice = hn::BitCast(d64, hn::LoadDup128(d8, bytes));
  return hn::And(hn::BitCast(d8, hn::Shr(twice, hn::Load(d64, kShifts))), low_bits);
#else
  const hn::Repartition<uint16_t, D8> d16;
  const V8 q = hn::LoadU(d8, bytes + i % 16);
  if (i < 16) return hn::And(q, low_bits);
  return hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, q))), low_bits);
#endif
}

struct Q4_0 {
  static constexpr int kZero = 8;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = false;
  static constexpr size_t kBytes = 18;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT) {
    LoadHalves<kBytes>(row + static_cast<size_t>(first_block) * kBytes, n_blocks, scale);
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    return Nibbles(Bytes(row) + static_cast<size_t>(block) * kBytes + 2, i);
  }
};

struct Q4_1 {
  static constexpr int kZero = 0;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = true;
  static constexpr size_t kBytes = 20;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT offset) {
    const std::byte* first = row + static_cast<size_t>(first_block) * kBytes;
    LoadHalves<kBytes>(first, n_blocks, scale);
    LoadHalves<kBytes>(first + 2, n_blocks, offset);
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    return Nibbles(Bytes(row) + static_cast<size_t>(block) * kBytes + 4, i);
  }
};

// 32 bits → 16 where a bit is set, for values [i, i + kByteLanes).
HWY_INLINE V8 SixteenWhereSet(const uint8_t* bits, int64_t i) {
  const D8 d8;
  uint8_t padded[8];  // LoadMaskBits may read eight bytes
  std::memcpy(padded, bits + i / 8, kByteLanes / 8);
  return hn::IfThenElseZero(hn::LoadMaskBits(d8, padded), hn::Set(d8, uint8_t{16}));
}

struct Q5_0 {
  static constexpr int kZero = 16;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = false;
  static constexpr size_t kBytes = 22;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT) {
    LoadHalves<kBytes>(row + static_cast<size_t>(first_block) * kBytes, n_blocks, scale);
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    const uint8_t* bytes = Bytes(row) + static_cast<size_t>(block) * kBytes;
    return hn::Or(Nibbles(bytes + 6, i), SixteenWhereSet(bytes + 2, i));
  }
};

struct Q5_1 {
  static constexpr int kZero = 0;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = true;
  static constexpr size_t kBytes = 24;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT offset) {
    const std::byte* first = row + static_cast<size_t>(first_block) * kBytes;
    LoadHalves<kBytes>(first, n_blocks, scale);
    LoadHalves<kBytes>(first + 2, n_blocks, offset);
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    const uint8_t* bytes = Bytes(row) + static_cast<size_t>(block) * kBytes;
    return hn::Or(Nibbles(bytes + 8, i), SixteenWhereSet(bytes + 4, i));
  }
};

struct Q8_0 {
  // The quanta are signed bytes.
  static constexpr int kZero = 128;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = false;
  static constexpr size_t kBytes = 34;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT) {
    LoadHalves<kBytes>(row + static_cast<size_t>(first_block) * kBytes, n_blocks, scale);
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    return hn::LoadU(D8(), Bytes(row) + static_cast<size_t>(block) * kBytes + 2 + i);
  }
};

// bytes >> n, for any n; what is shifted in from neighbours is to be masked away.
HWY_INLINE V8 ShiftBytes(V8 bytes, int n) {
  const hn::Repartition<uint16_t, D8> d16;
  return hn::BitCast(D8(), hn::ShiftRightSame(hn::BitCast(d16, bytes), n));
}

// Q4_K and Q5_K.
template <bool kHasHighBits>
struct Q45_K {
  static constexpr int kZero = 0;
  static constexpr bool kHalves = false;
  static constexpr bool kHasOffset = true;
  static constexpr size_t kNibbles = kHasHighBits ? 48 : 16;
  static constexpr size_t kBytes = kNibbles + 128;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT offset) {
    for (int64_t b = 0; b < n_blocks; b += 8) {
      const std::byte* block = row + static_cast<size_t>((first_block + b) / 8) * kBytes;
      HWY_ALIGN uint16_t halves[8] = {};
      HWY_ALIGN float floats[8];
      std::memcpy(halves, block, 4);
      HalvesToFloats(halves, 8, floats);
      for (int p = 0; p < 8; ++p) {
        const KScale part = UnpackKScale(Bytes(block) + 4, p);
        scale[b + p] = floats[0] * static_cast<float>(part.scale);
        offset[b + p] = -floats[1] * static_cast<float>(part.offset);
      }
    }
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    const D8 d8;
    const int part = static_cast<int>(block % 8);
    const uint8_t* bytes = Bytes(row) + static_cast<size_t>(block / 8) * kBytes;
    const V8 nibbles = hn::LoadU(d8, bytes + kNibbles + 32 * (part / 2) + i);
    V8 q = hn::And(ShiftBytes(nibbles, 4 * (part % 2)), hn::Set(d8, uint8_t{15}));
    if constexpr (kHasHighBits) {
      const V8 bit = hn::Set(d8, static_cast<uint8_t>(1 << part));
      const V8 high = hn::And(hn::LoadU(d8, bytes + 16 + i), bit);
      q = hn::Or(q, hn::IfThenElseZero(hn::Eq(high, bit), hn::Set(d8, uint8_t{16})));
    }
    return q;
  }
};
using Q4_K = Q45_K<false>;
using Q5_K = Q45_K<true>;

struct Q6_K {
  static constexpr int kZero = 32;
  static constexpr bool kHalves = true;
  static constexpr bool kHasOffset = false;
  static constexpr size_t kBytes = 210;
  static HWY_INLINE void Scales(const std::byte* row, int64_t first_block, int64_t n_blocks,
                                float* HWY_RESTRICT scale, float* HWY_RESTRICT) {
    for (int64_t b = 0; b < n_blocks; b += 8) {
      const std::byte* block = row + static_cast<size_t>((first_block + b) / 8) * kBytes;
      HWY_ALIGN uint16_t halves[8] = {};
      HWY_ALIGN float floats[8];
      std::memcpy(halves, block + 208, 2);
      HalvesToFloats(halves, 8, floats);
      const auto* parts = reinterpret_cast<const int8_t*>(block + 192);
      for (int p = 0; p < 16; ++p) scale[2 * b + p] = floats[0] * static_cast<float>(parts[p]);
    }
  }
  static HWY_INLINE V8 Quanta(const std::byte* row, int64_t block, int64_t i) {
    const D8 d8;
    const int half = static_cast<int>(block % 8 / 4);
    const int part = static_cast<int>(block % 4);
    const uint8_t* bytes = Bytes(row) + static_cast<size_t>(block / 8) * kBytes;
    const V8 nibbles = hn::LoadU(d8, bytes + 64 * half + 32 * (part % 2) + i);
    const V8 high = hn::LoadU(d8, bytes + 128 + 32 * half + i);
    const V8 above = hn::And(ShiftBytes(high, 2 * part), hn::Set(d8, uint8_t{3}));
    const hn::Repartition<uint16_t, D8> d16;
    return hn::Or(hn::And(ShiftBytes(nibbles, 4 * (part / 2)), hn::Set(d8, uint8_t{15})),
                  hn::BitCast(d8, hn::ShiftLeft<4>(hn::BitCast(d16, above))));
  }
};

}  // namespace blocks
}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET != HWY_SCALAR

#endif  // FOVEA_COMPUTE_CPU_STORED_BLOCKS
