#include "compute/cpu/code_scan_kernel.h"

#include <bit>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/code_scan_kernel.cc"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"
// After simd_targets.h.
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr hn::ScalableTag<uint32_t> kWords;
constexpr hn::RebindToFloat<decltype(kWords)> kFloats;
constexpr hn::RebindToSigned<decltype(kWords)> kSums;
using Words = hn::Vec<decltype(kWords)>;
using Floats = hn::Vec<decltype(kFloats)>;
using Sums = hn::Vec<decltype(kSums)>;
constexpr int64_t kLanes = hn::MaxLanes(kWords);
constexpr int kParts = static_cast<int>(kCodeBlockKeys / kLanes);  // vectors of a line
// Of 32 registers 16 are sums of 8 rows and two blocks, of 16 registers 8 those of 4 rows.
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
constexpr int kMaxRows = 8;
#else
constexpr int kMaxRows = 4;
#endif

// Sums of products of bytes: in one instruction, or over 16 bits, where neither codes of 2 or 4
// bits and digits of 8 nor codes of 8 bits and digits of 7 overflow.
template <bool kVnni>
HWY_INLINE Sums AddProducts(Sums sums, Words codes, Words digits) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  if constexpr (kVnni) {
    // Not an intrinsic: the instruction sets that this is compiled for do not include it.
#if HWY_TARGET <= HWY_AVX3
    asm("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sums.raw) : "v"(codes.raw), "v"(digits.raw));
#else
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums.raw) : "x"(codes.raw), "x"(digits.raw));
#endif
    return sums;
  }
#endif
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  const __m512i pairs = _mm512_maddubs_epi16(codes.raw, digits.raw);
  return hn::Add(sums, Sums{_mm512_madd_epi16(pairs, _mm512_set1_epi16(1))});
#elif HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  const __m256i pairs = _mm256_maddubs_epi16(codes.raw, digits.raw);
  return hn::Add(sums, Sums{_mm256_madd_epi16(pairs, _mm256_set1_epi16(1))});
#elif HWY_TARGET != HWY_SCALAR
  const hn::Repartition<int16_t, decltype(kWords)> d16;
  const auto wide_codes = hn::BitCast(d16, codes);
  const auto wide_digits = hn::BitCast(d16, digits);
  const auto even = hn::Mul(hn::And(wide_codes, hn::Set(d16, 0xff)),
                            hn::ShiftRight<8>(hn::ShiftLeft<8>(wide_digits)));
  const hn::RebindToUnsigned<decltype(d16)> du16;
  const auto odd = hn::Mul(hn::BitCast(d16, hn::ShiftRight<8>(hn::BitCast(du16, wide_codes))),
                           hn::ShiftRight<8>(wide_digits));
  const Sums pairs = hn::BitCast(kSums, hn::Add(even, odd));
  return hn::Add(sums,
                 hn::Add(hn::ShiftRight<16>(pairs), hn::ShiftRight<16>(hn::ShiftLeft<16>(pairs))));
#else
  int32_t sum = hn::GetLane(sums);
  for (int b = 0; b < 4; ++b) {
    sum += static_cast<int32_t>(hn::GetLane(codes) >> (8 * b) & 0xff) *
           static_cast<int8_t>(hn::GetLane(digits) >> (8 * b) & 0xff);
  }
  return hn::Set(kSums, sum);
#endif
}

HWY_INLINE Floats LoadFactors(const BFloat16* factors) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(kFloats, static_cast<float>(*factors));
#else
  const hn::Rebind<uint16_t, decltype(kWords)> d16;
  const auto bits = hn::LoadU(d16, reinterpret_cast<const uint16_t*>(factors));
  return hn::BitCast(kFloats, hn::ShiftLeft<16>(hn::PromoteTo(kWords, bits)));
#endif
}

// sums[row][vector] of kBlocks blocks side by side with kRows rows.
template <int kBits, int kRows, int kBlocks, bool kVnni>
HWY_INLINE void Multiply(const std::byte* HWY_RESTRICT codes, int64_t n_lines,
                         const uint32_t* HWY_RESTRICT words,
                         Sums (&sums)[kRows][kBlocks * kParts]) {
  constexpr int kVectors = kBlocks * kParts;
  const Words mask = hn::Set(kWords, ((1u << kBits) - 1) * 0x01010101u);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(kSums);
  }
  const int64_t block_bytes = n_lines * kCodeLineBytes;
  for (int64_t line = 0; line < n_lines; ++line) {
    Words packed[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      packed[v] =
          hn::LoadU(kWords, reinterpret_cast<const uint32_t*>(codes + (v / kParts) * block_bytes +
                                                              line * kCodeLineBytes) +
                                (v % kParts) * kLanes);
    }
    const auto add = [&](const Words(&now)[kVectors]) HWY_ATTR {
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Words digits = hn::Set(kWords, words[r]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] = AddProducts<kVnni>(sums[r][v], now[v], digits);
        }
      }
      words += kRows;
    };
    if constexpr (kBits == 8) {
      add(packed);
    } else {
      Words now[kVectors];
#pragma GCC unroll 4
      for (int shift = 0; shift < 8 / kBits; ++shift) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          now[v] = hn::And(packed[v], mask);
          packed[v] = hn::ShiftRight<kBits>(packed[v]);
        }
        add(now);
      }
    }
  }
}

// Which of the keys of block `block` there are and may be returned, bit k for key k.
HWY_INLINE uint32_t AllowedKeys(const BlockRange& range, int64_t block) {
  if (range.allowed == nullptr) return 0xffffu;
  return static_cast<uint32_t>(range.allowed[block / 4] >> (block % 4 * 16)) & 0xffffu;
}

// Those of a block's scores whose bit is set, when they reach the row's threshold: rare, so out of
// line.
HWY_NOINLINE void Collect(const float* scores, uint32_t bits, int64_t block, int64_t n_keys,
                          Collector& collector) {
  const int64_t first = block * kCodeBlockKeys;
  if (n_keys - first < kCodeBlockKeys) bits &= (1u << (n_keys - first)) - 1;
  for (; bits != 0; bits &= bits - 1) {
    const int key = std::countr_zero(bits);
    // The threshold rises with what is added.
    if (scores[key] >= collector.threshold()) {
      collector.Add({scores[key], static_cast<int32_t>(first + key)});
    }
  }
}

// Bit l for lane l.
HWY_INLINE uint32_t LaneBits(hn::Mask<decltype(kFloats)> mask) {
  uint8_t bytes[8] = {};
  hn::StoreMaskBits(kFloats, mask, bytes);
  return bytes[0] | static_cast<uint32_t>(bytes[1]) << 8;
}

template <int kBits, int kRows, int kBlocks, bool kVnni>
HWY_INLINE void ScanBlocks(const BlockRange& range, const RowGroup& group, int64_t block,
                           Collector* collectors) {
  constexpr int kVectors = kBlocks * kParts;
  const std::byte* codes = range.keys->codes + block * range.n_lines * kCodeLineBytes;
  Sums sums[kRows][kVectors];
  Multiply<kBits, kRows, kBlocks, kVnni>(codes, range.n_lines, group.words, sums);
  Floats factors[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    factors[v] = LoadFactors(range.keys->factors + block * kCodeBlockKeys + v * kLanes);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Floats threshold = hn::Set(kFloats, collectors[r].threshold());
    const Floats offset = hn::Set(kFloats, group.offsets[r]);
    Floats scores[kVectors];
    auto reaches = hn::Lt(threshold, threshold);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      scores[v] = hn::Mul(hn::Sub(hn::ConvertTo(kFloats, sums[r][v]), offset), factors[v]);
      reaches = hn::Or(reaches, hn::Ge(scores[v], threshold));
    }
    if (HWY_LIKELY(hn::AllFalse(kFloats, reaches))) continue;
    HWY_ALIGN float stored[kBlocks * kCodeBlockKeys];
    uint32_t bits[kBlocks] = {};
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      hn::Store(scores[v], kFloats, stored + v * kLanes);
      bits[v / kParts] |= LaneBits(hn::Ge(scores[v], threshold)) << (v % kParts * kLanes);
    }
    for (int b = 0; b < kBlocks; ++b) {
      bits[b] &= AllowedKeys(range, block + b);
      if (bits[b] == 0) continue;
      Collect(stored + b * kCodeBlockKeys, bits[b], block + b, range.keys->n_keys, collectors[r]);
    }
  }
}

// Two blocks at a time hide the latency of the sums where a line is a single vector.
constexpr int kBlocksAtOnce = kParts == 1 ? 2 : 1;
// Lines ahead of the one that is read: the processor's own prefetchers stop at a page's end.
constexpr int64_t kFetchAhead = 32;

template <int kBits, int kRows, bool kVnni>
HWY_NOINLINE void ScanGroup(const BlockRange& range, const RowGroup& group, Collector* collectors) {
  const int64_t block_bytes = range.n_lines * kCodeLineBytes;
  const std::byte* end = range.keys->codes + KeyCoder::NumBlocks(range.keys->n_keys) * block_bytes;
  for (int64_t block = range.begin; block < range.end;) {
    const std::byte* codes = range.keys->codes + block * block_bytes;
    const std::byte* ahead =
        range.next >= 0 ? range.keys->codes + (range.next + block - range.begin) * block_bytes
                        : codes + kFetchAhead * kCodeLineBytes;
    if (ahead + kBlocksAtOnce * block_bytes <= end) {
      for (int64_t line = 0; line < kBlocksAtOnce * range.n_lines; ++line) {
        hwy::Prefetch(ahead + line * kCodeLineBytes);
      }
    }
    if (block + kBlocksAtOnce <= range.end) {
      uint32_t allowed = 0;
      for (int b = 0; b < kBlocksAtOnce; ++b) allowed |= AllowedKeys(range, block + b);
      if (allowed != 0) {
        ScanBlocks<kBits, kRows, kBlocksAtOnce, kVnni>(range, group, block, collectors);
      }
      block += kBlocksAtOnce;
    } else {
      if (AllowedKeys(range, block) != 0) {
        ScanBlocks<kBits, kRows, 1, kVnni>(range, group, block, collectors);
      }
      ++block;
    }
  }
}

// group.n_rows is kRows or more, at most kMaxRows.
template <int kBits, bool kVnni, int kRows = 1>
void ScanRows(const BlockRange& range, const RowGroup& group, Collector* collectors) {
  if constexpr (kRows < kMaxRows) {
    if (group.n_rows > kRows) return ScanRows<kBits, kVnni, kRows + 1>(range, group, collectors);
  }
  ScanGroup<kBits, kRows, kVnni>(range, group, collectors);
}

// Every row's keys of the range that pass its threshold go to its collector, collectors =
// [group.n_rows].
void ScanCodes(int bits, bool vnni, const BlockRange& range, const RowGroup& group,
               Collector* collectors) {
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  if (vnni) {
    if (bits == 2) return ScanRows<2, true>(range, group, collectors);
    if (bits == 4) return ScanRows<4, true>(range, group, collectors);
    return ScanRows<8, true>(range, group, collectors);
  }
#else
  (void)vnni;
#endif
  if (bits == 2) return ScanRows<2, false>(range, group, collectors);
  if (bits == 4) return ScanRows<4, false>(range, group, collectors);
  return ScanRows<8, false>(range, group, collectors);
}

int NumRowsAtOnce() { return kMaxRows; }

// Whether the instructions that ScanCodes(vnni) uses are those of AVX-512, of AVX, or there are
// none.
int VnniEncoding() {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  return 512;
#elif HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
  return 256;
#else
  return 0;
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(ScanCodes);
HWY_EXPORT(VnniEncoding);
HWY_EXPORT(NumRowsAtOnce);

int MaxCodeRows() { return HWY_DYNAMIC_DISPATCH(NumRowsAtOnce)(); }

bool HasCodeScanVnni() {
  switch (HWY_DYNAMIC_DISPATCH(VnniEncoding)()) {
    case 512:
      return HasAvx512Vnni();
    case 256:
      return HasAvxVnni();
  }
  return false;
}

void ScanCodeBlocks(int bits, bool vnni, const BlockRange& range, const RowGroup& group,
                    Collector* collectors) {
  HWY_DYNAMIC_DISPATCH(ScanCodes)(bits, vnni, range, group, collectors);
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
