#include "compute/cpu/int8_gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/cpu/amx.h"
#include "compute/cpu/simd_targets.h"
#include "compute/cpu/vnni.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/int8_gemm.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

// A packed panel holds, group by group: scales [64] | values + 128 [group / 4][64 features][4].
// So a vector of 32-bit sums takes as many features as it has lanes, whatever multiplies:
//   - VPDPBUSD, four products in one instruction, multiplies bytes without a sign by bytes with
//     one: the weights as they are packed. Then Σ x_q·w_q = Σ x_q·(w_q + 128) − 128·Σ x_q, and the
//     last term is where a row's sum starts (Int8Rows::starts);
//   - SDOT, ARM's, in builds for processors that have it (-march=…+dotprod), multiplies bytes with
//     a sign: the weights' highest bit is flipped before, which subtracts 128, and sums start at 0;
//   - TDPBSUD, AMX's, which multiplies the same by tiles: the panel's rows of 256 bytes are four
//     tiles of 16 features beside one another. A last group that is shorter than the others is left
//     to VPDPBUSD;
//   - elsewhere both factors are widened to 16 bits and two products are added up in 32. Bytes
//     without this would be multiplied faster (VPMADDUBSW), but 2 · 127 · 255 does not fit the 16
//     bits of its sums, which saturate.
// All are exact: 32 bits hold 96 products of 127 and 255 many times over.

#ifndef FOVEA_COMPUTE_CPU_INT8_GEMM_ONCE
#define FOVEA_COMPUTE_CPU_INT8_GEMM_ONCE
namespace fovea::compute::cpu {

inline constexpr int64_t kScaleBytes = kInt8PanelFeatures * static_cast<int64_t>(sizeof(float));

// One group of a tile of rows.
struct GroupArgs {
  const int8_t* values;  // [rows, n], value_stride apart
  int64_t value_stride;
  int64_t n;              // a multiple of four
  const int32_t* starts;  // [rows], row_stride apart
  const float* scales;    // [rows], row_stride apart
  int64_t row_stride;
  const float* weight_scales;  // [kInt8PanelFeatures]
  const uint8_t* weights;      // [n / 4, kInt8PanelFeatures, 4]
};

}  // namespace fovea::compute::cpu
#endif  // FOVEA_COMPUTE_CPU_INT8_GEMM_ONCE

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Not a number where one of the values is not finite: maxima alone may lose those.
HWY_INLINE float LargestMagnitude(const float* x, int64_t n) {
  const hn::ScalableTag<float> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto zero = hn::Zero(d);
  auto largest = zero;
  auto zeros = zero;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto xi = hn::LoadU(d, x + i);
    largest = hn::Max(largest, hn::Abs(xi));
    zeros = hn::MulAdd(xi, zero, zeros);
  }
  float result = hn::GetLane(hn::MaxOfLanes(d, largest));
  float rest = hn::GetLane(hn::SumOfLanes(d, zeros));
  for (; i < n; ++i) {
    result = std::max(result, std::abs(x[i]));
    rest += x[i] * 0.0f;
  }
  return result + rest;
}

// q = round(x · inverse), to nearest even; the sum of all q.
HWY_INLINE int32_t RoundToInt8(const float* x, int64_t n, float inverse, int8_t* q) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const hn::Rebind<int8_t, decltype(d)> d8;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, inverse);
  auto sums = hn::Zero(d32);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), factor));
    sums = hn::Add(sums, rounded);
    hn::StoreU(hn::DemoteTo(d8, rounded), d8, q + i);
  }
  int32_t sum = hn::GetLane(hn::SumOfLanes(d32, sums));
  for (; i < n; ++i) {
    const auto rounded = static_cast<int32_t>(std::nearbyint(x[i] * inverse));
    sum += rounded;
    q[i] = static_cast<int8_t>(rounded);
  }
  return sum;
}

// The scale of a group, and what its sums start at.
HWY_INLINE void QuantizeGroup(const float* x, int64_t n, int8_t* values, float& scale,
                              int32_t& start) {
  scale = LargestMagnitude(x, n) / 127.0f;
  // Where 1/scale is no number, values are zero for all that float32 can tell, or not finite;
  // then the scale is not finite either and makes the products so.
  const float inverse = std::isnormal(scale) ? 1.0f / scale : 0.0f;
  if (inverse != 0.0f) {
    start = -128 * RoundToInt8(x, n, inverse, values);
  } else {
    std::fill(values, values + n, int8_t{0});
    start = 0;
  }
}

void QuantizeRow(const float* x, const Int8Rows& rows, int8_t* values, float* scales,
                 int32_t* starts) {
  const int64_t n_whole = rows.k / kInt8Group;
  for (int64_t group = 0; group < n_whole; ++group) {  // a number of values known here: unrolled
    const int64_t first = group * kInt8Group;
    QuantizeGroup(x + first, kInt8Group, values + first, scales[group], starts[group]);
  }
  if (n_whole < rows.n_groups) {
    const int64_t first = n_whole * kInt8Group;
    QuantizeGroup(x + first, rows.k - first, values + first, scales[n_whole], starts[n_whole]);
  }
  std::fill(values + rows.k, values + rows.stride, int8_t{0});
}

#if HWY_TARGET != HWY_SCALAR

constexpr hn::CappedTag<int32_t, 16> kSums;
constexpr hn::RebindToFloat<decltype(kSums)> kFloats;
constexpr hn::Repartition<int16_t, decltype(kSums)> kWords;
constexpr hn::Repartition<uint16_t, decltype(kSums)> kUnsignedWords;
constexpr hn::Repartition<uint8_t, decltype(kSums)> kBytes;
constexpr hn::Repartition<int8_t, decltype(kSums)> kSignedBytes;
using Sums = hn::Vec<decltype(kSums)>;
using Words = hn::Vec<decltype(kWords)>;
constexpr int64_t kLanes = hn::MaxLanes(kSums);

// totals[r, feature + l] += scales[r] · weight_scales[feature + l] · sums[r][·] of lane l.
template <int kRows, int kVectors>
HWY_INLINE void AddScaled(const GroupArgs& g, int64_t feature, const Sums (&sums)[kRows][kVectors],
                          float (*totals)[kInt8PanelFeatures]) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const auto scale = hn::Set(kFloats, g.scales[r * g.row_stride]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      float* const total = totals[r] + feature + v * kLanes;
      const auto scaled = hn::Mul(hn::ConvertTo(kFloats, sums[r][v]),
                                  hn::Load(kFloats, g.weight_scales + feature + v * kLanes));
      hn::Store(hn::MulAdd(scaled, scale, hn::Load(kFloats, total)), kFloats, total);
    }
  }
}

// Whether there is an instruction for four byte products, which not every processor has that the
// instruction set is compiled for.
#if HWY_TARGET <= HWY_AVX2 || (HWY_ARCH_ARM_A64 && defined(__ARM_FEATURE_DOTPROD))
#define FOVEA_HAS_FOUR_PRODUCTS 1
#else
#define FOVEA_HAS_FOUR_PRODUCTS 0
#endif

#if FOVEA_HAS_FOUR_PRODUCTS

bool HasFourProducts() {
#if HWY_TARGET <= HWY_AVX3
  return HasAvx512Vnni();
#elif HWY_TARGET <= HWY_AVX2
  return HasAvxVnni();
#else
  return HasArmDotProduct();
#endif
}

// sums + four products each. Instructions by hand: the instruction set that this is compiled for
// does not include them, and so GCC 12 keeps the sums in registers.
HWY_INLINE Sums AddFourProducts(Sums sums, Sums weights, Sums values) {
#if HWY_TARGET <= HWY_AVX3
  __asm__("%{evex%} vpdpbusd %2, %1, %0" : "+v"(sums.raw) : "v"(weights.raw), "v"(values.raw));
#elif HWY_TARGET <= HWY_AVX2
  __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums.raw) : "x"(weights.raw), "x"(values.raw));
#else
  __asm__("sdot %0.4s, %1.16b, %2.16b" : "+w"(sums.raw) : "w"(weights.raw), "w"(values.raw));
#endif
  return sums;
}

// With 32 registers 6 × 4 sums, 4 weights and 1 value of x want 29; with 16, 6 × 2, 2 and 1.
struct FourProducts {
  static constexpr int kTileRows = 6;
  static constexpr int kVectors = HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64 ? 4 : 2;

  // Not inlined and unrolled, for the same reason.
  template <int kRows>
  static HWY_NOINLINE void AddGroup(const GroupArgs& g, float (*totals)[kInt8PanelFeatures]) {
    for (int64_t feature = 0; feature < kInt8PanelFeatures; feature += kVectors * kLanes) {
      Sums sums[kRows][kVectors];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const int32_t start = HWY_ARCH_ARM_A64 ? 0 : g.starts[r * g.row_stride];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Set(kSums, start);
      }
      const auto* packed = reinterpret_cast<const int32_t*>(g.weights) + feature;
      for (int64_t i = 0; i < g.n; i += 4, packed += kInt8PanelFeatures) {
        Sums weights[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          weights[v] = hn::Load(kSums, packed + v * kLanes);
#if HWY_ARCH_ARM_A64
          weights[v] = hn::Xor(weights[v], hn::BitCast(kSums, hn::Set(kBytes, uint8_t{128})));
#endif
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          int32_t four;
          std::memcpy(&four, g.values + r * g.value_stride + i, sizeof(four));
          const Sums values = hn::Set(kSums, four);
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = AddFourProducts(sums[r][v], weights[v], values);
          }
        }
      }
      AddScaled<kRows, kVectors>(g, feature, sums, totals);
    }
  }
};

#endif  // FOVEA_HAS_FOUR_PRODUCTS

// sums + two products each; where those of neighbours go to lanes of their own (NEON), `more` takes
// the upper half.
HWY_INLINE Sums AddTwoProducts(Sums sums, Words weights, Words values, Sums& more) {
  sums = hn::ReorderWidenMulAccumulate(kSums, weights, values, sums, more);
#if HWY_ARCH_X86 && HWY_TARGET != HWY_EMU128
  // GCC 12 would add up products in another order, in which it runs out of registers.
  __asm__("" : "+v"(sums.raw));
#endif
  return sums;
}

// 4 × 2 sums, the even and the odd bytes of 2 weights, 1 value of x and 1 product want 14 of 16
// registers.
struct WordProducts {
  static constexpr int kTileRows = 4;
  static constexpr int kVectors = 2;

  // The values of a row as pairs of 16 bits: of each four bytes the even two and the odd two, as
  // they meet those of the weights.
  struct RowPairs {
    static constexpr int64_t kPadded = 128;  // whole vectors of any size
    static_assert(kInt8Group <= kPadded);
    alignas(64) int32_t even[kPadded / 4];
    alignas(64) int32_t odd[kPadded / 4];

    HWY_INLINE void Set(const int8_t* values, int64_t n) {
      if (n == kInt8Group && kInt8Group % kVectorBytes == 0) {
        for (int64_t i = 0; i < kInt8Group; i += kVectorBytes) SetVector(values, i);
      } else {
        alignas(64) int8_t padded[kPadded] = {};
        std::memcpy(padded, values, static_cast<size_t>(n));
        for (int64_t i = 0; i < n; i += kVectorBytes) SetVector(padded, i);
      }
    }

   private:
    static constexpr int64_t kVectorBytes = kLanes * 4;
    HWY_INLINE void SetVector(const int8_t* values, int64_t i) {
      const auto words = hn::BitCast(kWords, hn::LoadU(kSignedBytes, values + i));
      const auto evens = hn::ShiftRight<8>(hn::ShiftLeft<8>(words));
      hn::Store(hn::BitCast(kSums, evens), kSums, even + i / 4);
      hn::Store(hn::BitCast(kSums, hn::ShiftRight<8>(words)), kSums, odd + i / 4);
    }
  };

  template <int kRows>
  static HWY_NOINLINE void AddGroup(const GroupArgs& g, float (*totals)[kInt8PanelFeatures]) {
    RowPairs x[kRows];
    for (int r = 0; r < kRows; ++r) x[r].Set(g.values + r * g.value_stride, g.n);
    for (int64_t feature = 0; feature < kInt8PanelFeatures; feature += kVectors * kLanes) {
      Sums sums[kRows][kVectors], more[kRows][kVectors];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] = hn::Zero(kSums);
          more[r][v] = hn::Zero(kSums);
        }
      }
      const uint8_t* packed = g.weights + feature * 4;
      for (int64_t i = 0; i < g.n / 4; ++i, packed += kInt8PanelFeatures * 4) {
        Words even[kVectors], odd[kVectors];
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          const auto bytes = hn::BitCast(kUnsignedWords, hn::Load(kBytes, packed + v * kLanes * 4));
          even[v] = hn::BitCast(kWords, hn::And(bytes, hn::Set(kUnsignedWords, 0xff)));
          odd[v] = hn::BitCast(kWords, hn::ShiftRight<8>(bytes));
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Words x_even = hn::BitCast(kWords, hn::Set(kSums, x[r].even[i]));
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = AddTwoProducts(sums[r][v], even[v], x_even, more[r][v]);
          }
          const Words x_odd = hn::BitCast(kWords, hn::Set(kSums, x[r].odd[i]));
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; ++v) {
            sums[r][v] = AddTwoProducts(sums[r][v], odd[v], x_odd, more[r][v]);
          }
        }
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Sums start = hn::Set(kSums, g.starts[r * g.row_stride]);
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; ++v) {
          sums[r][v] = hn::Add(start, hn::RearrangeToOddPlusEven(sums[r][v], more[r][v]));
        }
      }
      AddScaled<kRows, kVectors>(g, feature, sums, totals);
    }
  }
};

// Rows from `row` on, of one group.
HWY_INLINE GroupArgs GroupOf(const Int8Product& p, int64_t row, int64_t group) {
  const Int8Rows& x = *p.rows;
  const int64_t first = group * kInt8Group;
  const std::byte* const packed = p.panel + group * (kScaleBytes + kInt8PanelFeatures * kInt8Group);
  return {.values = x.values + row * x.stride + first,
          .value_stride = x.stride,
          .n = std::min(kInt8Group, x.stride - first),
          .starts = x.starts + row * x.n_groups + group,
          .scales = x.scales + row * x.n_groups + group,
          .row_stride = x.n_groups,
          .weight_scales = reinterpret_cast<const float*>(packed),
          .weights = reinterpret_cast<const uint8_t*>(packed + kScaleBytes)};
}

HWY_INLINE void CopyFeatures(const float* from, int64_t n, float* to) {
  if (n == kInt8PanelFeatures) {  // known here: no call
    std::copy_n(from, kInt8PanelFeatures, to);
  } else {
    std::copy_n(from, n, to);
  }
}

// What the products are added to.
HWY_INLINE void StartTotals(const Int8Product& p, int64_t row, int64_t n_rows,
                            float (*totals)[kInt8PanelFeatures]) {
  const float* const out = p.out + row * p.out_stride;
  for (int64_t r = 0; r < n_rows; ++r) {
    std::fill_n(totals[r], kInt8PanelFeatures, 0.0f);
    if (p.add_to_out) CopyFeatures(out + r * p.out_stride, p.n_features, totals[r]);
    if (p.bias == nullptr) continue;
    for (int64_t f = 0; f < p.n_features; ++f) totals[r][f] += p.bias[f];
  }
}

HWY_INLINE void StoreTotals(const Int8Product& p, int64_t row, int64_t n_rows,
                            const float (*totals)[kInt8PanelFeatures]) {
  float* const out = p.out + row * p.out_stride;
  for (int64_t r = 0; r < n_rows; ++r) {
    CopyFeatures(totals[r], p.n_features, out + r * p.out_stride);
  }
}

template <class Kernel, int kRows>
void MultiplyTile(const Int8Product& p, int64_t row) {
  alignas(64) float totals[kRows][kInt8PanelFeatures];
  StartTotals(p, row, kRows, totals);
  for (int64_t group = 0; group < p.rows->n_groups; ++group) {
    Kernel::template AddGroup<kRows>(GroupOf(p, row, group), totals);
  }
  StoreTotals(p, row, kRows, totals);
}

// The last n_rows ≤ kRows, which fill no tile.
template <class Kernel, int kRows = Kernel::kTileRows - 1>
void MultiplyRest(const Int8Product& p, int64_t row, int64_t n_rows) {
  if constexpr (kRows > 0) {
    if (n_rows == kRows) return MultiplyTile<Kernel, kRows>(p, row);
    MultiplyRest<Kernel, kRows - 1>(p, row, n_rows);
  }
}

template <class Kernel>
void MultiplyRows(const Int8Product& p, int64_t begin, int64_t end) {
  int64_t row = begin;
  for (; row + Kernel::kTileRows <= end; row += Kernel::kTileRows) {
    MultiplyTile<Kernel, Kernel::kTileRows>(p, row);
  }
  MultiplyRest<Kernel>(p, row, end - row);
}

#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86

constexpr int64_t kFeatureTiles = kInt8PanelFeatures / 16;
constexpr int64_t kHalfGroup = kInt8Group / 2;  // values that a tile's rows hold
static_assert(kHalfGroup <= 64 && kHalfGroup % 4 == 0);
enum PanelTile : int { kValues = kFeatureTiles, kWeights, kOtherWeights };

using AmxSums = int32_t[kFeatureTiles][kAmxRows][16];

template <int kFeatures, bool kFirst>
HWY_INLINE void AddHalf(const AmxTiles& tiles, const uint8_t* weights) {
  constexpr int kTile = kFeatures % 2 == 0 ? kWeights : kOtherWeights;
  tiles.Load<kTile>(weights + kFeatures * 64, kInt8PanelFeatures * 4);
  if constexpr (kFirst) tiles.Zero<kFeatures>();
  tiles.AddProducts<kFeatures, kValues, kTile>();
}

// Products of a whole group → sums, without its starts.
HWY_INLINE void MultiplyGroupAmx(const AmxTiles& tiles, const GroupArgs& g, AmxSums& sums) {
  tiles.Load<kValues>(g.values, g.value_stride);
  AddHalf<0, true>(tiles, g.weights);
  AddHalf<1, true>(tiles, g.weights);
  AddHalf<2, true>(tiles, g.weights);
  AddHalf<3, true>(tiles, g.weights);
  const uint8_t* const rest = g.weights + kHalfGroup * kInt8PanelFeatures;
  tiles.Load<kValues>(g.values + kHalfGroup, g.value_stride);
  AddHalf<0, false>(tiles, rest);
  AddHalf<1, false>(tiles, rest);
  AddHalf<2, false>(tiles, rest);
  AddHalf<3, false>(tiles, rest);
  tiles.Store<0>(sums[0], 64);
  tiles.Store<1>(sums[1], 64);
  tiles.Store<2>(sums[2], 64);
  tiles.Store<3>(sums[3], 64);
}

HWY_INLINE void AddScaledAmx(const GroupArgs& g, const AmxSums& sums, int64_t n_rows,
                             float (*totals)[kInt8PanelFeatures]) {
  for (int64_t r = 0; r < n_rows; ++r) {
    const auto start = hn::Set(kSums, g.starts[r * g.row_stride]);
    Sums of_row[1][kFeatureTiles];
#pragma GCC unroll 4
    for (int64_t f = 0; f < kFeatureTiles; ++f) {
      of_row[0][f] = hn::Add(start, hn::Load(kSums, sums[f][r]));
    }
    AddScaled<1, kFeatureTiles>({.scales = g.scales + r * g.row_stride,
                                 .row_stride = g.row_stride,
                                 .weight_scales = g.weight_scales},
                                0, of_row, totals + r);
  }
}

// Rows that are multiplied by a group's weights while those are in the first cache.
constexpr int64_t kAmxChunkRows = 6 * kAmxRows;

// Up to kAmxChunkRows rows, the last tile of them filled up with what lies behind. A tile's sums
// are added while the next one is multiplied: read at once, they would wait for their writes.
void MultiplyChunkAmx(const AmxTiles& tiles, const Int8Product& p, int64_t row, int64_t n_rows) {
  alignas(64) float totals[kAmxChunkRows][kInt8PanelFeatures];
  alignas(64) AmxSums sums[2];
  StartTotals(p, row, n_rows, totals);
  const int64_t n_tiles = (n_rows + kAmxRows - 1) / kAmxRows;
  const int64_t n_whole = p.rows->stride / kInt8Group;
  int64_t at = 0;
  const auto add = [&](int64_t tile, int64_t group) HWY_ATTR {
    const int64_t first = tile * kAmxRows;
    AddScaledAmx(GroupOf(p, row + first, group), sums[(at - 1) % 2],
                 std::min(kAmxRows, n_rows - first), totals + first);
  };
  for (int64_t group = 0; group < n_whole; ++group) {
    for (int64_t tile = 0; tile < n_tiles; ++tile, ++at) {
      MultiplyGroupAmx(tiles, GroupOf(p, row + tile * kAmxRows, group), sums[at % 2]);
      if (at > 0) tile > 0 ? add(tile - 1, group) : add(n_tiles - 1, group - 1);
    }
  }
  if (at > 0) add(n_tiles - 1, n_whole - 1);
  for (int64_t r = 0; n_whole < p.rows->n_groups && r < n_rows; ++r) {
    FourProducts::AddGroup<1>(GroupOf(p, row + r, n_whole), totals + r);
  }
  StoreTotals(p, row, n_rows, totals);
}

void MultiplyRowsAmx(const Int8Product& p, int64_t begin, int64_t end) {
  const AmxTiles::Shape sums{kAmxRows, 64}, weights{kHalfGroup / 4, 64};
  const AmxTiles tiles({sums, sums, sums, sums, {kAmxRows, kHalfGroup}, weights, weights, {}});
  for (int64_t row = begin; row < end; row += kAmxChunkRows) {
    MultiplyChunkAmx(tiles, p, row, std::min(kAmxChunkRows, end - row));
  }
}

#endif

bool HasKernel() { return true; }

void MultiplyInt8Impl(const Int8Product& product, int64_t begin, int64_t end) {
#if HWY_TARGET <= HWY_AVX3 && HWY_ARCH_X86
  if (HasFourProducts() && HasAmxInt8()) return MultiplyRowsAmx(product, begin, end);
#endif
#if FOVEA_HAS_FOUR_PRODUCTS
  if (HasFourProducts()) return MultiplyRows<FourProducts>(product, begin, end);
#endif
  MultiplyRows<WordProducts>(product, begin, end);
}

#undef FOVEA_HAS_FOUR_PRODUCTS

#else

bool HasKernel() { return false; }

void MultiplyInt8Impl(const Int8Product& product, int64_t begin, int64_t end) {
  MultiplyInt8Plain(product, begin, end);
}

#endif  // HWY_TARGET != HWY_SCALAR

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(QuantizeRow);
HWY_EXPORT(MultiplyInt8Impl);
HWY_EXPORT(HasKernel);

namespace {

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t Groups(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

}  // namespace

bool HasInt8Kernel() { return HWY_DYNAMIC_DISPATCH(HasKernel)(); }

size_t Int8PanelBytes(int64_t k) {
  return static_cast<size_t>(Groups(k) * kScaleBytes + kInt8PanelFeatures * RoundUp(k, 4));
}

void PackInt8Panel(const float* weight, int64_t n_features, int64_t k, std::byte* packed) {
  int8_t q[kInt8Group];
  for (int64_t group = 0; group < Groups(k); ++group) {
    const int64_t first = group * kInt8Group;
    const int64_t n = std::min(kInt8Group, k - first);
    const int64_t n_padded = RoundUp(n, 4);
    auto* const scales = reinterpret_cast<float*>(packed);
    auto* const values = reinterpret_cast<uint8_t*>(packed + kScaleBytes);
    std::fill(scales, scales + kInt8PanelFeatures, 0.0f);
    std::fill(values, values + kInt8PanelFeatures * n_padded, uint8_t{128});
    for (int64_t feature = 0; feature < n_features; ++feature) {
      // A row of weights is quantised as a row of x.
      int32_t start;
      const Int8Rows one{
          .k = n, .n_groups = 1, .stride = n, .values = q, .scales = nullptr, .starts = nullptr};
      HWY_DYNAMIC_DISPATCH(QuantizeRow)
      (weight + feature * k + first, one, q, scales + feature, &start);
      for (int64_t i = 0; i < n; ++i) {
        values[i / 4 * 4 * kInt8PanelFeatures + feature * 4 + i % 4] =
            static_cast<uint8_t>(q[i] + 128);
      }
    }
    packed += kScaleBytes + kInt8PanelFeatures * n_padded;
  }
}

size_t Int8RowsBytes(int64_t n_rows, int64_t k) {
  const auto of_row = static_cast<size_t>(RoundUp(k, 4)) +
                      static_cast<size_t>(Groups(k)) * (sizeof(float) + sizeof(int32_t));
  // A tile of rows may be read to its end.
  return static_cast<size_t>(n_rows) * of_row + static_cast<size_t>(kAmxRows * RoundUp(k, 4));
}

Int8Rows MakeInt8Rows(int64_t n_rows, int64_t k, std::byte* memory) {
  Int8Rows rows{.k = k, .n_groups = Groups(k), .stride = RoundUp(k, 4)};
  rows.values = reinterpret_cast<int8_t*>(memory);
  rows.scales = reinterpret_cast<float*>(memory + n_rows * rows.stride);
  rows.starts = reinterpret_cast<int32_t*>(rows.scales + n_rows * rows.n_groups);
  return rows;
}

void QuantizeInt8Rows(const float* x, int64_t begin, int64_t end, const Int8Rows& rows) {
  for (int64_t row = begin; row < end; ++row) {
    HWY_DYNAMIC_DISPATCH(QuantizeRow)
    (x + row * rows.k, rows, rows.values + row * rows.stride, rows.scales + row * rows.n_groups,
     rows.starts + row * rows.n_groups);
  }
}

void MultiplyInt8(const Int8Product& product, int64_t begin, int64_t end) {
  HWY_DYNAMIC_DISPATCH(MultiplyInt8Impl)(product, begin, end);
}

void MultiplyInt8Plain(const Int8Product& p, int64_t begin, int64_t end) {
  const Int8Rows& x = *p.rows;
  for (int64_t row = begin; row < end; ++row) {
    float* const out = p.out + row * p.out_stride;
    const std::byte* packed = p.panel;
    for (int64_t group = 0; group < x.n_groups; ++group) {
      const int64_t first = group * kInt8Group;
      const int64_t n = std::min(kInt8Group, x.stride - first);
      const auto* const weight_scales = reinterpret_cast<const float*>(packed);
      const auto* const weights = reinterpret_cast<const uint8_t*>(packed + kScaleBytes);
      packed += kScaleBytes + kInt8PanelFeatures * n;
      const int8_t* const values = x.values + row * x.stride + first;
      int32_t sums[kInt8PanelFeatures];
      std::fill(sums, sums + kInt8PanelFeatures, x.starts[row * x.n_groups + group]);
      for (int64_t i = 0; i < n; i += 4) {
        const uint8_t* const four = weights + i * kInt8PanelFeatures;
        for (int64_t f = 0; f < kInt8PanelFeatures; ++f) {
          for (int64_t j = 0; j < 4; ++j) sums[f] += values[i + j] * four[f * 4 + j];
        }
      }
      const float scale = x.scales[row * x.n_groups + group];
      for (int64_t f = 0; f < p.n_features; ++f) {
        float before = group > 0 || p.add_to_out ? out[f] : 0.0f;
        if (group == 0 && p.bias != nullptr) before += p.bias[f];
        out[f] = std::fma(static_cast<float>(sums[f]) * weight_scales[f], scale, before);
      }
    }
  }
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
