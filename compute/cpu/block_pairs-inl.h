// Block-quantised weights as 512-bit vectors: two blocks of 32 values at a time, straight from
// where they are stored. Included by what multiplies them with AVX-512 VNNI, once for each
// instruction set.
//
// A pair is loaded with one instruction and ordered with a second: both blocks, scales included,
// lie within 64 bytes (but for Q8_0's). Layouts: compute/dtype.h.
#if defined(FOVEA_COMPUTE_CPU_BLOCK_PAIRS) == defined(HWY_TARGET_TOGGLE)
#ifdef FOVEA_COMPUTE_CPU_BLOCK_PAIRS
#undef FOVEA_COMPUTE_CPU_BLOCK_PAIRS
#else
#define FOVEA_COMPUTE_CPU_BLOCK_PAIRS
#endif

#include <array>
#include <cstdint>
#include <cstring>

#include "hwy/highway.h"

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace pairs {

// value[i] of block b = scale[b] · (quanta[i] − 2^kZeroBits) + offset[b], without the second term
// where kZeroBits is 0 and without the last one where !kHasOffset.
struct Pair {
  __m512i quanta;  // 2 · 32 unsigned bytes
  __m512 scale;    // each block's, eight times
  __m128 offset;   // [offset of the first, of the second, 0, 0]
};

// For _mm512_permutexvar_epi16: words [first, first + n) of each block, kRepeat times.
template <int kBlockWords, int kFirst, int kCount, int kRepeat>
constexpr std::array<uint16_t, 32> WordsOfBlocks() {
  static_assert(2 * kCount * kRepeat <= 32);
  std::array<uint16_t, 32> words{};
  size_t i = 0;
  for (int block = 0; block < 2; ++block) {
    for (int repeat = 0; repeat < kRepeat; ++repeat) {
      for (int w = 0; w < kCount; ++w) {
        words[i++] = static_cast<uint16_t>(block * kBlockWords + kFirst + w);
      }
    }
  }
  return words;
}

template <int kBlockWords, int kFirst, int kCount, int kRepeat>
HWY_INLINE __m512i PermuteWords(__m512i raw) {
  alignas(64) static constexpr std::array<uint16_t, 32> kWords =
      WordsOfBlocks<kBlockWords, kFirst, kCount, kRepeat>();
  return _mm512_permutexvar_epi16(_mm512_load_si512(kWords.data()), raw);
}

// The first n words at `at`; nothing behind them is touched.
HWY_INLINE __m512i LoadWords(const uint8_t* at, int n) {
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), at);
}

// A half-precision number at word kWord of each block, eight times.
template <int kBlockWords, int kWord>
HWY_INLINE __m512 EightFloats(__m512i raw) {
  return _mm512_cvtph_ps(_mm512_castsi512_si256(PermuteWords<kBlockWords, kWord, 1, 8>(raw)));
}

// Q4_0, Q4_1, Q5_0, Q5_1: 16 bytes of nibbles from word kNibbles on, of which the first 16 values
// are the low ones; the scale is word 0, the offset word 1; the fifth bits are the two words before
// the nibbles.
template <int kBlockWords, int kNibbles, int kZeroBitsOfType, bool kHasOffsetOfType,
          bool kHasFifthBits>
struct NibblePair {
  static constexpr int kZeroBits = kZeroBitsOfType;
  static constexpr bool kHasOffset = kHasOffsetOfType;
  static constexpr size_t kBytes = 2 * kBlockWords;

  // kBlocks: 1 for the last block of a row with an odd number of them; the other one is zeros.
  template <int kBlocks>
  static HWY_INLINE Pair Load(const uint8_t* at) {
    const __m512i raw = LoadWords(at, kBlocks * kBlockWords);
    const __m512i shifts = _mm512_broadcast_i64x4(_mm256_setr_epi64x(0, 0, 4, 4));
    const __m512i twice = PermuteWords<kBlockWords, kNibbles, 8, 2>(raw);
    Pair pair;
    pair.quanta = _mm512_and_si512(_mm512_srlv_epi64(twice, shifts), _mm512_set1_epi8(15));
    if constexpr (kHasFifthBits) {
      uint32_t bits[2] = {};
      for (int b = 0; b < kBlocks; ++b) {
        std::memcpy(&bits[b], at + static_cast<size_t>(b) * kBytes + 2 * kNibbles - 4, 4);
      }
      const uint64_t mask = bits[0] | static_cast<uint64_t>(bits[1]) << 32;
      pair.quanta = _mm512_or_si512(pair.quanta, _mm512_maskz_set1_epi8(mask, 16));
    }
    pair.scale = EightFloats<kBlockWords, 0>(raw);
    pair.offset = _mm_setzero_ps();
    if constexpr (kHasOffset) {
      // All but the first two words are masked away.
      alignas(64) static constexpr std::array<uint16_t, 32> kWords =
          WordsOfBlocks<kBlockWords, 1, 1, 1>();
      pair.offset = _mm_cvtph_ps(_mm512_castsi512_si128(
          _mm512_maskz_permutexvar_epi16(3, _mm512_load_si512(kWords.data()), raw)));
    }
    return pair;
  }
};

using Q4_0 = NibblePair<9, 1, 3, false, false>;
using Q4_1 = NibblePair<10, 2, 0, true, false>;
using Q5_0 = NibblePair<11, 3, 4, false, true>;
using Q5_1 = NibblePair<12, 4, 0, true, true>;

// The scale and 32 signed bytes.
struct Q8_0 {
  static constexpr int kZeroBits = 7;
  static constexpr bool kHasOffset = false;
  static constexpr size_t kBytes = 34;

  template <int kBlocks>
  static HWY_INLINE Pair Load(const uint8_t* at) {
    const auto bytes = [at](size_t block) HWY_ATTR {
      return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + block * kBytes + 2));
    };
    __m512i quanta = _mm512_castsi256_si512(bytes(0));
    if constexpr (kBlocks == 2) {
      quanta = _mm512_inserti64x4(quanta, bytes(1), 1);
    } else {
      quanta = _mm512_inserti64x4(quanta, _mm256_setzero_si256(), 1);
    }
    Pair pair;
    pair.quanta = _mm512_xor_si512(quanta, _mm512_set1_epi8(-128));
    // Words 0 and 17, the scales of both.
    pair.scale = EightFloats<17, 0>(LoadWords(at, kBlocks == 2 ? 18 : 1));
    pair.offset = _mm_setzero_ps();
    return pair;
  }
};

}  // namespace pairs
}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();
#endif  // HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86

#endif  // FOVEA_COMPUTE_CPU_BLOCK_PAIRS
