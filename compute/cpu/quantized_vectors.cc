#include "compute/cpu/quantized_vectors.h"

#include <algorithm>
#include <limits>

#include "base/status.h"
#include "compute/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "compute/cpu/quantized_vectors.cc"
// foreach_target.h has to come first: it compiles this file once for each instruction set.
#include "hwy/foreach_target.h"
// clang-format off
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace fovea::compute::cpu {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, 16>;
constexpr int64_t kLanes = hn::MaxLanes(D());
constexpr float kLargestQuantum = 127.0f * 128.0f;

// One vector.
void QuantizeVectorImpl(const float* x, const QuantizedVectors& out, int64_t token) {
  const D d;
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<int8_t, D> d8;
  int8_t* high = out.high + token * out.n_values;
  int8_t* low = out.low + token * out.n_values;
  int32_t* sums = out.sums + token * (out.n_values / 4);
  float* scales = out.scales + token * out.block_stride;
  float* totals = out.totals + token * out.block_stride;
  int32_t* block_sums = out.block_sums + token * out.block_stride;
  float* lane_scales = out.lane_scales + token * out.block_stride * 8;
  const int64_t n_blocks = out.n_values / kQuantizedBlock;
  for (int64_t block = 0; block < n_blocks; ++block) {
    const float* values = x + block * kQuantizedBlock;
    auto largest = hn::Zero(d);
    auto probe = hn::Zero(d);
    for (int64_t i = 0; i < kQuantizedBlock; i += kLanes) {
      const auto v = hn::LoadU(d, values + i);
      largest = hn::Max(largest, hn::Abs(v));
      probe = hn::MulAdd(v, hn::Zero(d), probe);  // NaN where a value is not finite
    }
    const float maximum = hn::GetLane(hn::MaxOfLanes(d, largest));
    // Blocks of zeros, and of values whose quotient would overflow, have no quanta.
    const bool has_quanta = maximum > 1e-30f && maximum <= std::numeric_limits<float>::max();
    const float scale = has_quanta ? maximum / kLargestQuantum : 0.0f;
    const auto inverse = hn::Set(d, has_quanta ? kLargestQuantum / maximum : 0.0f);
    HWY_ALIGN int32_t quanta[kQuantizedBlock];
    auto total = hn::Zero(di);
    for (int64_t i = 0; i < kQuantizedBlock; i += kLanes) {
      // The limit is for values that are not finite.
      const auto q = hn::Max(hn::Min(hn::NearestInt(hn::Mul(hn::LoadU(d, values + i), inverse)),
                                     hn::Set(di, 127 * 128)),
                             hn::Set(di, -127 * 128));
      const auto high_digit = hn::ShiftRight<7>(hn::Add(q, hn::Set(di, 64)));
      const auto low_digit = hn::Sub(q, hn::ShiftLeft<7>(high_digit));
      hn::StoreU(hn::DemoteTo(d8, high_digit), d8, high + i);
      hn::StoreU(hn::DemoteTo(d8, low_digit), d8, low + i);
      hn::Store(q, di, quanta + i);
      total = hn::Add(total, q);
    }
    const hn::CappedTag<int32_t, 4> di4;
    for (int64_t i = 0; i < kQuantizedBlock; i += 16) {
      const auto sum =
          hn::Add(hn::Add(hn::Load(di4, quanta + i), hn::Load(di4, quanta + i + 4)),
                  hn::Add(hn::Load(di4, quanta + i + 8), hn::Load(di4, quanta + i + 12)));
      hn::StoreU(sum, di4, sums + i / 4);
    }
    // + 0, or NaN.
    const float not_finite = hn::GetLane(hn::SumOfLanes(d, probe));
    scales[block] = scale + not_finite;
    block_sums[block] = hn::GetLane(hn::SumOfLanes(di, total));
    totals[block] = scales[block] * static_cast<float>(block_sums[block]);
    std::fill_n(lane_scales + block * 8, 8, scales[block]);
    high += kQuantizedBlock;
    low += kQuantizedBlock;
    sums += kQuantizedBlock / 4;
  }
  for (int64_t block = n_blocks; block < out.block_stride; ++block) {
    scales[block] = totals[block] = 0.0f;
    block_sums[block] = 0;
    std::fill_n(lane_scales + block * 8, 8, 0.0f);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace fovea::compute::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fovea::compute::cpu {

HWY_EXPORT(QuantizeVectorImpl);

namespace {

// Blocks of a vector rounded up to the widest vector of floats, which is also 64 bytes.
int64_t BlockStride(int64_t n_values) { return (n_values / kQuantizedBlock + 15) / 16 * 16; }

// A vector of the widest digits may begin with the last block.
constexpr size_t kReadableBehind = 64;

}  // namespace

size_t QuantizedVectorsBytes(int64_t n_tokens, int64_t n_values) {
  const int64_t bytes = 2 * n_values + n_values / 4 * static_cast<int64_t>(sizeof(int32_t)) +
                        (2 + 1 + 8) * BlockStride(n_values) * static_cast<int64_t>(sizeof(float));
  return static_cast<size_t>(n_tokens * bytes) + kReadableBehind;
}

QuantizedVectors PlaceQuantizedVectors(int64_t n_tokens, int64_t n_values, std::byte* memory) {
  FOVEA_CHECK(n_values % kQuantizedBlock == 0);
  QuantizedVectors out{
      .n_tokens = n_tokens, .n_values = n_values, .block_stride = BlockStride(n_values)};
  out.scales = reinterpret_cast<float*>(memory);
  out.totals = out.scales + n_tokens * out.block_stride;
  out.block_sums = reinterpret_cast<int32_t*>(out.totals + n_tokens * out.block_stride);
  out.lane_scales = reinterpret_cast<float*>(out.block_sums + n_tokens * out.block_stride);
  out.sums = reinterpret_cast<int32_t*>(out.lane_scales + n_tokens * out.block_stride * 8);
  out.high = reinterpret_cast<int8_t*>(out.sums + n_tokens * (n_values / 4));
  out.low = out.high + n_tokens * n_values;
  return out;
}

void QuantizeVector(const float* x, int64_t token, const QuantizedVectors& to) {
  HWY_DYNAMIC_DISPATCH(QuantizeVectorImpl)(x, to, token);
}

}  // namespace fovea::compute::cpu
#endif  // HWY_ONCE
