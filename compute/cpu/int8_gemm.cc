#include "compute/cpu/int8_gemm.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/int8_gemm.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// VPDPBUSD multiplies bytes without a sign by bytes with one. Weights are the former: stored as
// w_q + 128. Then Σ x_q·w_q = Σ x_q·(w_q + 128) − 128·Σ x_q, and the last term is where a row's sum
// starts (Int8Rows::starts). A sum of 96 products of 127 and 255 stays far below 2³¹.
//
// A packed panel holds, group by group: scales [64] | values [group / 4][64 features][4].

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Not a number where one of the values is not finite: maxima alone may lose those.
float LargestMagnitude(const float* x, int64_t n) {
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
int32_t RoundToInt8(const float* x, int64_t n, float inverse, int8_t* q) {
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

void QuantizeRow(const float* x, const Int8Rows& rows, int8_t* values, float* scales,
                 int32_t* starts) {
  for (int64_t group = 0; group < rows.n_groups; ++group) {
    const int64_t first = group * kInt8Group;
    const int64_t n = std::min(kInt8Group, rows.k - first);
    const float scale = LargestMagnitude(x + first, n) / 127.0f;
    // Where 1/scale is no number, values are zero for all that float32 can tell, or not finite;
    // then the scale is not finite either and makes the products so.
    const float inverse = std::isnormal(scale) ? 1.0f / scale : 0.0f;
    scales[group] = scale;
    if (inverse != 0.0f) {
      starts[group] = -128 * RoundToInt8(x + first, n, inverse, values + first);
    } else {
      std::fill(values + first, values + first + n, int8_t{0});
      starts[group] = 0;
    }
  }
  std::fill(values + rows.k, values + rows.stride, int8_t{0});
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(QuantizeRow);

namespace {

constexpr int64_t RoundUp(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}
constexpr int64_t Groups(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

constexpr int64_t kScaleBytes = kInt8PanelFeatures * static_cast<int64_t>(sizeof(float));

#if defined(__x86_64__)

constexpr int kVectors = kInt8PanelFeatures / 16;
// 6 × 4 sums, 4 weights and 1 value of x want 29 of 32 registers.
constexpr int kTileRows = 6;
// GCC 12 warns of the unmasked conversion's own undefined operand.
constexpr __mmask16 kAll = 0xffff;

// The features of a panel that exist, as masks of its vectors.
struct Masks {
  __mmask16 of[kVectors];
};

#define FOVEA_VNNI target("avx512f,avx512bw,avx512vl,avx512vnni")

// One group of a tile.
struct GroupArgs {
  const int8_t* values;  // [kRows, n], value_stride apart
  int64_t value_stride;
  int64_t n;              // a multiple of four
  const int32_t* starts;  // [kRows], row_stride apart
  const float* scales;    // [kRows], row_stride apart
  int64_t row_stride;
  const float* weight_scales;  // [kInt8PanelFeatures]
  const std::byte* weights;    // [n / 4, kInt8PanelFeatures, 4]
};

// totals[r, f] += scales[r] · weight_scales[f] · (starts[r] + Σ values[r, i] · weights[i, f]).
// Not inlined, unrolled, and the instruction by hand: so GCC 12 keeps the sums in registers.
template <int kRows>
__attribute__((FOVEA_VNNI, noinline)) void AddGroup(const GroupArgs& g,
                                                    float (*totals)[kInt8PanelFeatures]) {
  __m512i sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums[r][v] = _mm512_set1_epi32(g.starts[r * g.row_stride]);
  }
  const std::byte* packed = g.weights;
  for (int64_t i = 0; i < g.n; i += 4) {
    __m512i weights[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) weights[v] = _mm512_load_si512(packed + v * 64);
    packed += kInt8PanelFeatures * 4;
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t four;
      std::memcpy(&four, g.values + r * g.value_stride + i, sizeof(four));
      const __m512i xi = _mm512_set1_epi32(four);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(sums[r][v]) : "v"(weights[v]), "v"(xi));
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const __m512 scale = _mm512_set1_ps(g.scales[r * g.row_stride]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const __m512 scaled = _mm512_mul_ps(_mm512_maskz_cvtepi32_ps(kAll, sums[r][v]),
                                          _mm512_load_ps(g.weight_scales + v * 16));
      _mm512_store_ps(totals[r] + v * 16,
                      _mm512_fmadd_ps(scaled, scale, _mm512_load_ps(totals[r] + v * 16)));
    }
  }
}

template <int kRows>
__attribute__((FOVEA_VNNI)) void MultiplyTile(const Int8Product& p, const Masks& masks,
                                              int64_t row) {
  const Int8Rows& x = *p.rows;
  const int8_t* const values = x.values + row * x.stride;
  const float* const scales = x.scales + row * x.n_groups;
  const int32_t* const starts = x.starts + row * x.n_groups;
  float* const out = p.out + row * p.out_stride;
  alignas(64) float totals[kRows][kInt8PanelFeatures];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      __m512 total = _mm512_setzero_ps();
      if (p.add_to_out) total = _mm512_maskz_loadu_ps(masks.of[v], out + r * p.out_stride + v * 16);
      if (p.bias != nullptr) {
        total = _mm512_add_ps(total, _mm512_maskz_loadu_ps(masks.of[v], p.bias + v * 16));
      }
      _mm512_store_ps(totals[r] + v * 16, total);
    }
  }
  const std::byte* packed = p.panel;
  for (int64_t group = 0; group < x.n_groups; ++group) {
    const auto* const weight_scales = reinterpret_cast<const float*>(packed);
    const int64_t first = group * kInt8Group;
    const int64_t n = std::min(kInt8Group, x.stride - first);
    AddGroup<kRows>({.values = values + first,
                     .value_stride = x.stride,
                     .n = n,
                     .starts = starts + group,
                     .scales = scales + group,
                     .row_stride = x.n_groups,
                     .weight_scales = weight_scales,
                     .weights = packed + kScaleBytes},
                    totals);
    packed += kScaleBytes + kInt8PanelFeatures * n;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      _mm512_mask_storeu_ps(out + r * p.out_stride + v * 16, masks.of[v],
                            _mm512_load_ps(totals[r] + v * 16));
    }
  }
}

void MultiplyVnni(const Int8Product& p, int64_t begin, int64_t end) {
  Masks masks;
  for (int v = 0; v < kVectors; ++v) {
    const int64_t n = std::clamp<int64_t>(p.n_features - v * 16, 0, 16);
    masks.of[v] = static_cast<__mmask16>((1u << n) - 1);
  }
  int64_t row = begin;
  for (; row + kTileRows <= end; row += kTileRows) MultiplyTile<kTileRows>(p, masks, row);
  switch (end - row) {
    case 1:
      return MultiplyTile<1>(p, masks, row);
    case 2:
      return MultiplyTile<2>(p, masks, row);
    case 3:
      return MultiplyTile<3>(p, masks, row);
    case 4:
      return MultiplyTile<4>(p, masks, row);
    case 5:
      return MultiplyTile<5>(p, masks, row);
    default:
      return;
  }
}

bool HasVnni() {
  static const bool has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512vnni");
  return has;
}

#endif

}  // namespace

bool HasFastInt8Gemm() {
#if defined(__x86_64__)
  return HasVnni();
#else
  return false;
#endif
}

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
  return static_cast<size_t>(n_rows) * of_row;
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
#if defined(__x86_64__)
  if (HasVnni()) return MultiplyVnni(product, begin, end);
#endif
  MultiplyInt8Plain(product, begin, end);
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
