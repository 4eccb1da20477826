// One line of codes serves 16 keys: a vector holds the sums of as many keys as it has 32-bit lanes,
// each byte product adds four dimensions, and a block's scores of one query are compared with the
// query's threshold at once. A query's threshold comes from a sample of the blocks, so that few
// keys pass it; it is the same for all threads, and what passes is sorted out at the end.
#include "compute/cpu/code_scan.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/code_scan.cc"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"
// After simd_targets.h.
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/cache_control.h"
#include "hwy/highway.h"

#ifndef FOVEA_COMPUTE_CPU_CODE_SCAN_ONCE
#define FOVEA_COMPUTE_CPU_CODE_SCAN_ONCE
namespace fovea::compute::cpu {

inline constexpr int64_t kLineBytes = 64;

// Rows of queries that go through a block together.
inline constexpr int kMaxGroup = 4;

// One to kMaxGroup rows of queries of one KV head, as a scan wants them.
struct RowGroup {
  const uint32_t* words;  // [padded_dim / 4, n_rows]: four digits each
  const float* offsets;   // [n_rows]: what the sum of a key with codes in the middle would be
  int n_rows;
};

struct BlockRange {
  const CodedKeys* keys;
  int64_t n_lines;
  int64_t begin;
  int64_t end;
  int64_t next;             // a block to fetch meanwhile, or −1
  const uint64_t* allowed;  // or null
};

// How a grid fits a key x: with c = code − middle, Σ c·x and Σ c².
struct GridFit {
  float product;
  float norm2;
};

}  // namespace fovea::compute::cpu
#endif

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
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(kSums);
  }
  const int64_t block_bytes = n_lines * kLineBytes;
  for (int64_t line = 0; line < n_lines; ++line) {
    Words packed[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      packed[v] = hn::LoadU(kWords, reinterpret_cast<const uint32_t*>(
                                        codes + (v / kParts) * block_bytes + line * kLineBytes) +
                                        (v % kParts) * kLanes);
    }
    const auto add = [&](const Words(&now)[kVectors]) HWY_ATTR {
#pragma GCC unroll 4
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
  const std::byte* codes = range.keys->codes + block * range.n_lines * kLineBytes;
  Sums sums[kRows][kVectors];
  Multiply<kBits, kRows, kBlocks, kVnni>(codes, range.n_lines, group.words, sums);
  Floats factors[kVectors];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    factors[v] = LoadFactors(range.keys->factors + block * kCodeBlockKeys + v * kLanes);
  }
#pragma GCC unroll 4
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
  const int64_t block_bytes = range.n_lines * kLineBytes;
  const std::byte* end = range.keys->codes + KeyCoder::NumBlocks(range.keys->n_keys) * block_bytes;
  for (int64_t block = range.begin; block < range.end;) {
    const std::byte* codes = range.keys->codes + block * block_bytes;
    const std::byte* ahead =
        range.next >= 0 ? range.keys->codes + (range.next + block - range.begin) * block_bytes
                        : codes + kFetchAhead * kLineBytes;
    if (ahead + kBlocksAtOnce * block_bytes <= end) {
      for (int64_t line = 0; line < kBlocksAtOnce * range.n_lines; ++line) {
        hwy::Prefetch(ahead + line * kLineBytes);
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

template <int kBits, bool kVnni>
void ScanRows(const BlockRange& range, const RowGroup& group, Collector* collectors) {
  switch (group.n_rows) {
    case 1:
      return ScanGroup<kBits, 1, kVnni>(range, group, collectors);
    case 2:
      return ScanGroup<kBits, 2, kVnni>(range, group, collectors);
    case 3:
      return ScanGroup<kBits, 3, kVnni>(range, group, collectors);
    default:
      return ScanGroup<kBits, kMaxGroup, kVnni>(range, group, collectors);
  }
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

// out = [padded_dim] ← the rotation of x = [head_dim].
void Rotate(const float* HWY_RESTRICT rotation, const float* HWY_RESTRICT x, int64_t head_dim,
            int64_t padded_dim, float* HWY_RESTRICT out) {
  const hn::ScalableTag<float> d;
  const auto n_lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + 4 * n_lanes <= padded_dim; i += 4 * n_lanes) {
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d), sum2 = hn::Zero(d), sum3 = hn::Zero(d);
    for (int64_t k = 0; k < head_dim; ++k) {
      const auto value = hn::Set(d, x[k]);
      const float* row = rotation + k * padded_dim + i;
      sum0 = hn::MulAdd(hn::LoadU(d, row), value, sum0);
      sum1 = hn::MulAdd(hn::LoadU(d, row + n_lanes), value, sum1);
      sum2 = hn::MulAdd(hn::LoadU(d, row + 2 * n_lanes), value, sum2);
      sum3 = hn::MulAdd(hn::LoadU(d, row + 3 * n_lanes), value, sum3);
    }
    hn::StoreU(sum0, d, out + i);
    hn::StoreU(sum1, d, out + i + n_lanes);
    hn::StoreU(sum2, d, out + i + 2 * n_lanes);
    hn::StoreU(sum3, d, out + i + 3 * n_lanes);
  }
  for (; i < padded_dim; ++i) {
    float sum = 0.0f;
    for (int64_t k = 0; k < head_dim; ++k) sum += rotation[k * padded_dim + i] * x[k];
    out[i] = sum;
  }
}

GridFit FitGrid(const float* HWY_RESTRICT x, int64_t n, float inverse_step, float middle) {
  const hn::ScalableTag<float> d;
  const auto n_lanes = static_cast<int64_t>(hn::Lanes(d));
  auto product = hn::Zero(d);
  auto norm2 = hn::Zero(d);
  int64_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes) {
    const auto value = hn::LoadU(d, x + i);
    const auto code =
        hn::Min(hn::Max(hn::Round(hn::MulAdd(value, hn::Set(d, inverse_step), hn::Set(d, middle))),
                        hn::Zero(d)),
                hn::Set(d, 2.0f * middle));
    const auto centred = hn::Sub(code, hn::Set(d, middle));
    product = hn::MulAdd(centred, value, product);
    norm2 = hn::MulAdd(centred, centred, norm2);
  }
  GridFit fit{hn::GetLane(hn::SumOfLanes(d, product)), hn::GetLane(hn::SumOfLanes(d, norm2))};
  for (; i < n; ++i) {
    const float code =
        std::clamp(std::nearbyint(x[i] * inverse_step + middle), 0.0f, 2.0f * middle) - middle;
    fit.product += code * x[i];
    fit.norm2 += code * code;
  }
  return fit;
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(ScanCodes);
HWY_EXPORT(VnniEncoding);
HWY_EXPORT(Rotate);
HWY_EXPORT(FitGrid);

namespace {

bool HasVnni() {
  switch (HWY_DYNAMIC_DISPATCH(VnniEncoding)()) {
    case 512:
      return HasAvx512Vnni();
    case 256:
      return HasAvxVnni();
  }
  return false;
}

// Rows (query, head) that go through a scan together: what their candidates take stays small.
constexpr int64_t kRowsAtOnce = 256;

// A sample of the blocks: runs of kSampleRun in every kSampleEvery.
constexpr int64_t kSampleRun = 4;
constexpr int64_t kSampleEvery = 64;
// Fewer keys are not worth a sample.
constexpr int64_t kMinSampledKeys = 16'384;

// Codes that a thread keeps in its second-level cache while it puts many rows through them.
constexpr int64_t kChunkBytes = 128 << 10;

// The rank in the sample that n_candidates of all keys hardly ever fall short of; 0: no sample.
int64_t SampleRank(int64_t n_keys, int64_t n_candidates) {
  if (n_keys < kMinSampledKeys) return 0;
  const double expected =
      static_cast<double>(n_candidates) * static_cast<double>(kSampleRun) / kSampleEvery;
  // Four standard deviations of a Poisson variable, and some more since neighbours are alike.
  const auto rank = static_cast<int64_t>(1.25 * expected + 4.0 * std::sqrt(expected) + 8.0);
  return rank * 4 <= n_keys * kSampleRun / kSampleEvery ? rank : 0;
}

// Rows first … first + n of each KV head: row = query · group + head in group.
struct Portion {
  int64_t first;
  int64_t n;
};

class Scanner {
 public:
  Scanner(CpuDevice& device, const CodeScanArgs& args)
      : threads_(device.threads()),
        args_(args),
        scratch_(device.code_scan_scratch()),
        vnni_(HasVnni()),
        n_kv_heads_(static_cast<int64_t>(args.heads.size())),
        n_heads_(args.queries.dim(1)),
        group_(n_heads_ / n_kv_heads_),
        n_keys_(args.heads[0].n_keys),
        n_blocks_(KeyCoder::NumBlocks(n_keys_)),
        n_words_(args.coder->padded_dim() / 4) {}

  void Run(Portion portion, int64_t* positions) {
    portion_ = portion;
    n_rows_ = n_kv_heads_ * portion.n;
    groups_per_head_ = (portion.n + kMaxGroup - 1) / kMaxGroup;
    PackQueries();
    FindThresholds();
    Scan();
    const int64_t n_wanted = std::min(args_.n_candidates, n_keys_);
    bool is_short = false;
    Finish(positions, n_wanted, &is_short);
    if (!is_short) return;
    // A sample misjudged what there is, or a filter leaves less than is wanted.
    Scan();
    Finish(positions, n_wanted, &is_short);
  }

 private:
  // Row `row` of the portion, of KV head row / portion.n, among [n_queries, n_heads].
  int64_t Place(int64_t row) const {
    const int64_t in_head = portion_.first + row % portion_.n;
    return in_head / group_ * n_heads_ + row / portion_.n * group_ + in_head % group_;
  }

  // Group g of the portion's rows: rows of one KV head.
  int64_t FirstRow(int64_t g) const {
    return g / groups_per_head_ * portion_.n + g % groups_per_head_ * kMaxGroup;
  }
  RowGroup Group(int64_t g) const {
    const int64_t first = FirstRow(g);
    const int64_t head_end = (g / groups_per_head_ + 1) * portion_.n;
    return {scratch_.words.data() + first * n_words_, scratch_.offsets.data() + first,
            static_cast<int>(std::min<int64_t>(kMaxGroup, head_end - first))};
  }

  void PackQueries() {
    const KeyCoder& coder = *args_.coder;
    const int64_t padded_dim = coder.padded_dim();
    const float middle = static_cast<float>((1 << coder.bits()) - 1) / 2.0f;
    const float largest_digit = coder.bits() == 8 ? 63.0f : 127.0f;
    scratch_.words.resize(static_cast<size_t>(n_rows_ * n_words_));
    scratch_.offsets.resize(static_cast<size_t>(n_rows_));
    scratch_.rotated.resize(static_cast<size_t>(padded_dim));
    float* rotated = scratch_.rotated.data();
    for (int64_t g = 0; g < n_kv_heads_ * groups_per_head_; ++g) {
      const RowGroup group = Group(g);
      const int64_t first = FirstRow(g);
      uint32_t* words = scratch_.words.data() + first * n_words_;
      for (int64_t r = 0; r < group.n_rows; ++r) {
        const float* query = args_.queries.As<float>() + Place(first + r) * coder.head_dim();
        HWY_DYNAMIC_DISPATCH(Rotate)
        (coder.rotation().data(), query, coder.head_dim(), padded_dim, rotated);
        float largest = 0.0f;
        for (int64_t d = 0; d < padded_dim; ++d) largest = std::max(largest, std::abs(rotated[d]));
        // A query of zeros ranks nothing, nor does one that overflows.
        const float inverse =
            largest > 0.0f && std::isfinite(largest) ? largest_digit / largest : 0.0f;
        int32_t sum = 0;
        for (int64_t w = 0; w < n_words_; ++w) {
          uint32_t word = 0;
          for (int64_t b = 0; b < 4; ++b) {
            const float scaled = rotated[4 * w + b] * inverse;
            const auto digit =
                std::isfinite(scaled) ? static_cast<int32_t>(std::nearbyint(scaled)) : 0;
            sum += digit;
            word |= static_cast<uint32_t>(digit & 0xff) << (8 * b);
          }
          words[w * group.n_rows + r] = word;
        }
        scratch_.offsets[static_cast<size_t>(first + r)] = middle * static_cast<float>(sum);
      }
    }
  }

  BlockRange Range(int64_t kv_head, int64_t begin, int64_t end) const {
    return {&args_.heads[static_cast<size_t>(kv_head)],
            args_.coder->n_lines(),
            begin,
            end,
            -1,
            args_.allowed};
  }

  void FindThresholds() {
    scratch_.thresholds.assign(static_cast<size_t>(n_rows_),
                               -std::numeric_limits<float>::infinity());
    const int64_t rank = SampleRank(n_keys_, args_.n_candidates);
    if (rank == 0) return;
    if (static_cast<int64_t>(scratch_.samples.size()) < n_rows_) {
      scratch_.samples.resize(static_cast<size_t>(n_rows_));
    }
    threads_.ParallelFor(
        n_kv_heads_ * groups_per_head_, 1, [&](int64_t begin, int64_t end, int /*thread*/) {
          for (int64_t g = begin; g < end; ++g) {
            const RowGroup group = Group(g);
            const int64_t first = FirstRow(g);
            Collector* samples = scratch_.samples.data() + first;
            for (int r = 0; r < group.n_rows; ++r) {
              samples[r].Start(rank, -std::numeric_limits<float>::infinity());
            }
            BlockRange range = Range(g / groups_per_head_, 0, 0);
            for (int64_t block = 0; block + kSampleRun <= n_blocks_; block += kSampleEvery) {
              range.begin = block;
              range.end = block + kSampleRun;
              range.next = std::min(block + kSampleEvery, n_blocks_ - kSampleRun);
              HWY_DYNAMIC_DISPATCH(ScanCodes)(args_.coder->bits(), vnni_, range, group, samples);
            }
            for (int r = 0; r < group.n_rows; ++r) {
              samples[r].Shrink();
              if (static_cast<int64_t>(samples[r].hits().size()) == rank) {
                scratch_.thresholds[static_cast<size_t>(first + r)] = samples[r].threshold();
              }
            }
          }
        });
  }

  void Scan() {
    const auto n_threads = static_cast<size_t>(threads_.n_threads());
    if (scratch_.collectors.size() < n_threads) scratch_.collectors.resize(n_threads);
    scratch_.started.resize(n_threads);
    for (auto& started : scratch_.started) started.assign(static_cast<size_t>(n_rows_), 0);
    const int64_t block_bytes = args_.coder->n_lines() * kLineBytes;
    const int64_t chunk = std::clamp<int64_t>(n_blocks_ / (threads_.n_threads() * 8), 16,
                                              std::max<int64_t>(16, kChunkBytes / block_bytes));
    const int64_t chunks_per_head = (n_blocks_ + chunk - 1) / chunk;
    threads_.ParallelFor(
        n_kv_heads_ * chunks_per_head, 1, [&](int64_t begin, int64_t end, int thread) {
          std::vector<Collector>& collectors = scratch_.collectors[static_cast<size_t>(thread)];
          std::vector<uint8_t>& started = scratch_.started[static_cast<size_t>(thread)];
          if (static_cast<int64_t>(collectors.size()) < n_rows_) {
            collectors.resize(static_cast<size_t>(n_rows_));
          }
          for (int64_t item = begin; item < end; ++item) {
            const int64_t kv_head = item / chunks_per_head;
            const int64_t first_block = item % chunks_per_head * chunk;
            const BlockRange range =
                Range(kv_head, first_block, std::min(first_block + chunk, n_blocks_));
            for (int64_t g = kv_head * groups_per_head_; g < (kv_head + 1) * groups_per_head_;
                 ++g) {
              const RowGroup group = Group(g);
              const int64_t first = FirstRow(g);
              for (int64_t row = first; row < first + group.n_rows; ++row) {
                if (started[static_cast<size_t>(row)] != 0) continue;
                started[static_cast<size_t>(row)] = 1;
                collectors[static_cast<size_t>(row)].Start(
                    args_.n_candidates, scratch_.thresholds[static_cast<size_t>(row)]);
              }
              HWY_DYNAMIC_DISPATCH(ScanCodes)
              (args_.coder->bits(), vnni_, range, group, collectors.data() + first);
            }
          }
        });
  }

  // Sorts out what the threads found. Rows with less than is wanted that had a threshold lose it,
  // the others get one that nothing reaches, for another scan.
  void Finish(int64_t* positions, int64_t n_wanted, bool* is_short) {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    std::atomic<bool> any_short{false};
    // A row takes some microseconds; those of a single token suffice for a few threads.
    const int64_t grain = n_rows_ < 64 ? 2 : 32;
    threads_.ParallelFor(n_rows_, grain, [&](int64_t begin, int64_t end, int /*thread*/) {
      std::vector<Hit> all;
      for (int64_t row = begin; row < end; ++row) {
        float& threshold = scratch_.thresholds[static_cast<size_t>(row)];
        if (threshold == kInfinity) continue;
        all.clear();
        for (size_t thread = 0; thread < scratch_.started.size(); ++thread) {
          if (scratch_.started[thread][static_cast<size_t>(row)] == 0) continue;
          const auto& hits = scratch_.collectors[thread][static_cast<size_t>(row)].hits();
          all.insert(all.end(), hits.begin(), hits.end());
        }
        const auto n_found = static_cast<int64_t>(all.size());
        if (n_found < n_wanted && threshold != -kInfinity) {
          threshold = -kInfinity;
          any_short.store(true, std::memory_order_relaxed);
          continue;
        }
        threshold = kInfinity;
        int64_t* out = positions + Place(row) * args_.n_candidates;
        const int64_t n_kept = std::min(args_.n_candidates, n_found);
        if (n_kept < n_found) {
          std::nth_element(all.begin(), all.begin() + n_kept - 1, all.end(), IsBetter);
        }
        for (int64_t i = 0; i < n_kept; ++i) out[i] = all[static_cast<size_t>(i)].position;
        // Which threads found them must not show in the order.
        std::sort(out, out + n_kept);
        std::fill(out + n_kept, out + args_.n_candidates, int64_t{-1});
      }
    });
    *is_short = any_short.load();
  }

  ThreadPool& threads_;
  const CodeScanArgs& args_;
  CodeScanScratch& scratch_;
  const bool vnni_;
  const int64_t n_kv_heads_;
  const int64_t n_heads_;
  const int64_t group_;
  const int64_t n_keys_;
  const int64_t n_blocks_;
  const int64_t n_words_;
  Portion portion_{};
  int64_t n_rows_ = 0;
  int64_t groups_per_head_ = 0;
};

}  // namespace

void CodeScan(CpuDevice& device, const CodeScanArgs& args, int64_t* positions) {
  const auto n_kv_heads = static_cast<int64_t>(args.heads.size());
  const int64_t n_queries = args.queries.dim(0);
  const int64_t n_heads = args.queries.dim(1);
  if (args.heads[0].n_keys == 0) {
    std::fill_n(positions, n_queries * n_heads * args.n_candidates, int64_t{-1});
    return;
  }
  Scanner scanner(device, args);
  const int64_t rows_per_head = n_queries * (n_heads / n_kv_heads);
  const int64_t step = std::max<int64_t>(kMaxGroup, kRowsAtOnce / n_kv_heads);
  for (int64_t first = 0; first < rows_per_head; first += step) {
    scanner.Run({first, std::min(step, rows_per_head - first)}, positions);
  }
}

void EncodeCodeBlock(const KeyCoder& coder, const float* keys, int64_t n_keys, std::byte* codes,
                     BFloat16* factors) {
  const int bits = coder.bits();
  const int64_t padded_dim = coder.padded_dim();
  const float middle = static_cast<float>((1 << bits) - 1) / 2.0f;
  std::memset(codes, 0, static_cast<size_t>(coder.n_lines() * kLineBytes));
  std::fill(factors, factors + kCodeBlockKeys, BFloat16(0.0f));
  std::vector<float> x(static_cast<size_t>(padded_dim));
  for (int64_t key = 0; key < n_keys; ++key) {
    HWY_DYNAMIC_DISPATCH(Rotate)
    (coder.rotation().data(), keys + key * coder.head_dim(), coder.head_dim(), padded_dim,
     x.data());
    double norm2 = 0.0;
    float largest = 0.0f;
    for (const float value : x) {
      norm2 += static_cast<double>(value) * value;
      largest = std::max(largest, std::abs(value));
    }
    if (!(largest > 0.0f)) continue;  // the mean itself: every score is 0
    // The step whose grid points lie best in the key's direction, between those that suit flat and
    // peaked distributions (2 and 4 bits: about 1 and 1/3 of the standard deviation where they are
    // normal); 8 bits cover everything.
    const auto deviation = static_cast<float>(std::sqrt(norm2 / static_cast<double>(padded_dim)));
    constexpr float kSteps2[] = {0.75f, 0.85f, 0.95f, 1.05f, 1.15f, 1.3f};
    constexpr float kSteps4[] = {0.22f, 0.26f, 0.3f, 0.34f, 0.38f, 0.43f};
    const float whole = largest / middle;
    float best_step = whole;
    if (bits < 8) {
      float best = -1.0f;
      for (const float relative : bits == 2 ? kSteps2 : kSteps4) {
        const float step = std::min(relative * deviation, whole * 2.0f);
        const GridFit fit =
            HWY_DYNAMIC_DISPATCH(FitGrid)(x.data(), padded_dim, 1.0f / step, middle);
        const float cosine2 = fit.product * fit.product / std::max(fit.norm2, 1e-30f);
        if (cosine2 > best) {
          best = cosine2;
          best_step = step;
        }
      }
    }
    const float inverse_step = 1.0f / best_step;
    double product = 0.0;
    const int64_t per_line = 32 / bits;
    for (int64_t d = 0; d < padded_dim; ++d) {
      const float value = x[static_cast<size_t>(d)];
      const float code =
          std::clamp(std::nearbyint(value * inverse_step + middle), 0.0f, 2.0f * middle);
      product += static_cast<double>(value) * (code - middle);
      const int64_t in_line = d % per_line;
      std::byte& byte = codes[d / per_line * kLineBytes + key * 4 + in_line % 4];
      byte |= static_cast<std::byte>(static_cast<unsigned>(code) << (in_line / 4 * bits));
    }
    factors[key] = BFloat16(static_cast<float>(product > 0.0 ? norm2 / product : 0.0));
  }
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
